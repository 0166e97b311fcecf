"""Publishing one message through a gateway."""

from __future__ import annotations

import json
import socket

import pytest

from app.client.connection import ClientError, Target
from app.client.publishing import Outgoing, publish
from app.domain.uri import MqUri
from tests.unit.client.scripted import Answer, problem, scripted

_URI = MqUri.parse("demo::Queues::jobs")
_DONE = Answer(b'{"message_id": "m1", "mq_uri": "demo::Queues::jobs", "confirmed": true, "persistent": true}')


def test_sends_the_body_byte_for_byte_and_nothing_unasked() -> None:
    with scripted(_DONE) as gateway:
        answer = publish(Target(gateway.url), _URI, Outgoing(body=b"\x00\xff"))
    request = gateway.seen[0]
    assert (request.method, request.path, request.body) == ("POST", "/mq/demo/Queues/jobs?confirm=receipt", b"\x00\xff")
    assert "content-type" not in request.headers
    assert not [name for name in request.headers if name.startswith("mq-")]
    assert "authorization" not in request.headers
    assert answer["message_id"] == "m1"


def test_sends_everything_asked() -> None:
    message = Outgoing(
        body=b"{}",
        content_type="application/json",
        headers={"JobID": "é"},
        persistent=False,
        ttl_ms=5,
        priority=9,
        correlation_id="é",
        confirm="none",
        timeout_seconds=0.5,
    )
    with scripted(_DONE) as gateway:
        publish(Target(gateway.url, "hunter2"), _URI, message)
    request = gateway.seen[0]
    assert request.path == "/mq/demo/Queues/jobs?confirm=none&timeout=0.5"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer hunter2"
    assert request.headers["mq-persistent"] == "false"
    assert (request.headers["mq-ttl-ms"], request.headers["mq-priority"]) == ("5", "9")
    # The library of this test reads header bytes as Latin-1.
    assert request.headers["mq-correlation-id"].encode("latin-1").decode() == "é"
    assert json.loads(request.headers["mq-headers"]) == {"JobID": "é"}


def test_the_body_is_not_in_the_representation() -> None:
    assert "hunter2" not in repr(Outgoing(body=b"hunter2"))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (problem(503, "overloaded", outcome="not_sent"), "503 overloaded: why (nothing was sent)"),
        (Answer(b"<html>"), "200: not an answer of mq-gateway"),
        (Answer(b"", 302, {"Location": "/login"}), "302 Found: not an answer of mq-gateway"),
        (Answer(status=0), "the message may or may not have been delivered"),
        (Answer(b"{", cut=True), "the message may or may not have been delivered"),
    ],
)
def test_a_failure_says_what_became_of_the_message(answer: Answer, sentence: str) -> None:
    with scripted(answer) as gateway, pytest.raises(ClientError) as caught:
        publish(Target(gateway.url), _URI, Outgoing(body=b""))
    assert sentence in str(caught.value)
    assert len(gateway.seen) == 1


def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        target = Target(f"http://127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(ClientError, match="is `mq-gateway serve` running there"):
            publish(target, _URI, Outgoing(body=b""))


def test_a_header_that_cannot_be_sent_is_not_sent() -> None:
    with scripted() as gateway, pytest.raises(ClientError, match="nothing was sent"):
        publish(Target(gateway.url), _URI, Outgoing(body=b"", correlation_id="a\nb"))
    assert gateway.seen == []
