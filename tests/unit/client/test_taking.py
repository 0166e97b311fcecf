"""Taking messages from a gateway, and answering for them."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.client import connection
from app.client.connection import ClientError, Target
from app.client.stopping import Stop, Stopped
from app.client.taking import Source, Taken, Taker
from app.domain.uri import MqUri
from tests.unit.client.scripted import Answer, Scripted, problem, scripted

_URI = MqUri.parse("demo::Queues::a/b")
_ENVELOPE = b'{"message_id":"m1","body":{"a":\n1.50,\r"b":"\\n"},"redelivered":true,"lease":"l1"}'


@contextmanager
def _taker(gateway: Scripted, subscription: str | None = None, *, as_json: bool = False) -> Iterator[Taker]:
    source = Source(uri=_URI, lease_seconds=7.5, subscription=subscription, as_json=as_json)
    target = Target(gateway.url, "hunter2")
    with target.open(5) as client:
        yield Taker(target, client, source)


def _octets(body: bytes = b"\x00\xff", **headers: str) -> Answer:
    named = {f"Mq-{name.replace('_', '-')}": value for name, value in {"lease": "l1", **headers}.items()}
    return Answer(body, headers=named)


def test_takes_a_body_byte_for_byte() -> None:
    answer = _octets(message_id="\xc3\xa9", redelivered="true")  # the library of this test writes Latin-1
    with scripted(answer) as gateway, _taker(gateway) as taker:
        taken = taker.receive(3, Stop())
    assert taken == Taken(lease="l1", message_id="é", redelivered=True, content=b"\x00\xff")
    assert "hunter2" not in repr(taken)
    assert "l1" not in repr(taken)
    request = gateway.seen[0]
    assert (request.method, request.path) == ("POST", "/mq/demo/Queues/a%2Fb/receive?wait=3.000&lease=7.5")
    assert request.headers["accept"].startswith("application/octet-stream")
    assert request.headers["authorization"] == "Bearer hunter2"
    assert request.body == b""


def test_an_envelope_is_one_line_with_the_gateways_own_digits() -> None:
    answer = Answer(b'{"messages":[%b]}' % _ENVELOPE)
    with scripted(answer) as gateway, _taker(gateway, "archiver", as_json=True) as taker:
        taken = taker.receive(0, Stop())
    assert taken is not None
    assert (taken.lease, taken.message_id, taken.redelivered) == ("l1", "m1", True)
    assert taken.content.count(b"\n") == 1
    assert b"1.50" in taken.content
    assert json.loads(taken.content) == json.loads(_ENVELOPE)
    assert gateway.seen[0].path.endswith("&subscription=archiver")
    assert gateway.seen[0].headers["accept"] == "application/json"


def test_nothing_came() -> None:
    with scripted(Answer(status=204)) as gateway, _taker(gateway) as taker:
        assert taker.receive(0, Stop()) is None


@pytest.mark.parametrize(
    ("answer", "sentence", "retriable"),
    [
        (problem(503, "draining"), "503 draining: why", True),
        (problem(404, "unknown_destination"), "404 unknown_destination: why", False),
        (Answer(b"<html>"), "not an answer of mq-gateway", False),
        (Answer(b"", 302, {"Location": "/login"}), "not an answer of mq-gateway", False),
        (Answer(status=0), "cannot be reached", True),
        (Answer(b"half", headers={"Mq-Lease": "l"}, cut=True), "cannot be reached", True),
    ],
)
def test_what_is_no_message_says_why(answer: Answer, sentence: str, retriable: bool) -> None:
    with scripted(answer) as gateway, _taker(gateway) as taker, pytest.raises(ClientError, match=sentence) as caught:
        taker.receive(0, Stop())
    assert caught.value.retriable is retriable


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{}", "not an answer"),
        (b'{"messages":[]}', "not an answer"),
        (b'{"messages":[1]}', "not an answer"),
        (b'{ "messages": [%b]}' % _ENVELOPE, "not an answer"),
        (b'{"messages":[' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_an_envelope_that_is_none(body: bytes, sentence: str) -> None:
    with (
        scripted(Answer(body)) as gateway,
        _taker(gateway, as_json=True) as taker,
        pytest.raises(ClientError, match=sentence),
    ):
        taker.receive(0, Stop())


def test_answers_for_a_lease() -> None:
    said = [Answer(b'{"results":[{"lease":"l1","result":"done"}]}')]
    said += [Answer(b'{"results":[{"lease":"l1","result":"expired"}]}', 207)]
    with scripted(*said) as gateway, _taker(gateway, "archiver") as taker:
        assert taker.answer("ack", "l1") == "done"
        assert taker.answer("nack", "l1", requeue=False, delay=2) == "expired"
    assert [request.path for request in gateway.seen] == [
        "/mq/demo/Queues/a%2Fb/ack?subscription=archiver",
        "/mq/demo/Queues/a%2Fb/nack?subscription=archiver",
    ]
    assert json.loads(gateway.seen[1].body) == {"leases": ["l1"], "requeue": False, "delay": 2}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (problem(403, "forbidden"), "403 forbidden"),
        (Answer(b'{"results": []}'), "not an answer"),
        (Answer(b'{"results": [1]}'), "not an answer"),
        (Answer(status=0), "cannot be reached"),
    ],
)
def test_an_answer_that_is_none(answer: Answer, sentence: str) -> None:
    with scripted(answer) as gateway, _taker(gateway) as taker, pytest.raises(ClientError, match=sentence):
        taker.answer("ack", "l1")


def test_a_message_is_bounded_and_larger_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 3)
    with scripted(_octets(b"four"), _octets(b"fives")) as gateway, _taker(gateway) as taker:
        taken = taker.receive(0, Stop())
        assert taken is not None
        assert taken.content == b"four"
        monkeypatch.setattr("app.client.taking.MAX_MESSAGE_BYTES", 4)
        with pytest.raises(ClientError, match="too long"):
            taker.receive(0, Stop())


def test_a_signal_ends_the_wait() -> None:
    with scripted(Answer(status=0, delay=2)) as gateway, _taker(gateway) as taker, Stop() as stop:
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
        timer.start()
        with pytest.raises(Stopped):
            taker.receive(20, stop)
        timer.join()


class _Late(Stop):
    """The signal comes when the answer is there."""

    @contextmanager
    def idle(self) -> Iterator[None]:
        with super().idle():
            yield
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_after_the_answer_loses_no_message() -> None:
    with scripted(_octets()) as gateway, _taker(gateway) as taker, _Late() as stop:
        taken = taker.receive(0, stop)
    assert taken is not None
    assert taken.lease == "l1"
    assert stop.asked
