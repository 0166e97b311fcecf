"""Publishing many messages through a gateway."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from app.client.batching import publish_lines, sentences
from app.client.connection import ClientError, Target
from app.client.publishing import Outgoing
from app.domain.uri import MqUri
from tests.e2e.http_gateway import serving
from tests.unit.client.scripted import Answer, problem, scripted

_URI = MqUri.parse("demo::Queues::jobs")
_NOTHING = Outgoing(body=b"")


async def _publish(port: int, body: bytes, message: Outgoing = _NOTHING, **options: Any) -> dict[str, Any]:
    target = Target(f"http://127.0.0.1:{port}")
    return await asyncio.to_thread(publish_lines, target, _URI, io.BytesIO(body), message, **options)


async def test_every_line_is_published() -> None:
    async with serving() as served:
        report = await _publish(served.port, b'{"a":1}\n' * 20_000, Outgoing(body=b"", priority=3))
        assert (report["messages"], report["confirmed"]) == (20_000, 20_000)
        assert list(sentences(report)) == []
        array = Outgoing(body=b"", content_type="application/json", confirm="none")
        assert (await _publish(served.port, b'[{"body":1}]', array))["outcomes"] == {"unconfirmed": 1}
        assert (await _publish(served.port, b"1\n2\n", atomic=True))["confirmed"] == 2


async def test_a_report_is_a_report_whatever_it_says() -> None:
    async with serving() as served:
        report = await _publish(served.port, b"nope\n" * 12)
        assert report["code"] == "invalid_json"
        told = list(sentences(report))
        assert told[0].startswith("message 0: not_sent: invalid_json: the body")
        assert (len(told), told[-1]) == (11, "and 2 more")
        report = await _publish(served.port, b"1\nnope\n", atomic=True)
        assert report["outcomes"] == {"not_sent": 2}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (problem(503, "overloaded", outcome="not_sent"), "503 overloaded: why (nothing was sent)"),
        (Answer(b"<html>"), "200: not an answer of mq-gateway"),
        (Answer(b"<html>", 502), "502 Bad Gateway: not an answer of mq-gateway"),
        (Answer(status=0), "the messages may or may not have been delivered"),
    ],
)
def test_without_a_report_it_fails(answer: Answer, sentence: str) -> None:
    with scripted(answer) as gateway, pytest.raises(ClientError) as caught:
        publish_lines(Target(gateway.url), _URI, io.BytesIO(b""), _NOTHING)
    assert sentence in str(caught.value)


def test_what_another_machine_says_does_not_steer_a_terminal() -> None:
    report = json.loads('{"failures": [{"index": "\\u001b[2J", "detail": "x"}, 5], "failures_omitted": 3}')
    assert list(sentences(report)) == ["message  [2J: None: None: x", "and 3 more"]
