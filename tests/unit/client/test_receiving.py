"""A worker: takes one message after the other, has it handled, and answers for it."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from app.client import pausing, receiving
from app.client.connection import ClientError, Target
from app.client.handling import Outcome
from app.client.receiving import Receiver
from app.client.stopping import Stop
from app.client.taking import Source, Taken, Taker
from app.domain.uri import MqUri
from tests.unit.client.scripted import Answer, Scripted, problem, scripted

_URI = MqUri.parse("demo::Queues::jobs")
_NONE = Answer(status=204)


def _message(number: int) -> Answer:
    return Answer(b"%d" % number, headers={"Mq-Lease": f"l{number}", "Mq-Message-Id": f"m{number}"})


def _result(result: str) -> Answer:
    return Answer(json.dumps({"results": [{"result": result}]}).encode(), 200 if result == "done" else 207)


_DONE = _result("done")


class _Watched:
    """A receiver with what it handled and told."""

    def __init__(self, *outcomes: Outcome | BaseException, **options: Any) -> None:
        self.outcomes = list(outcomes)
        self.options = options
        self.handled: list[bytes] = []
        self.told: list[str] = []
        self.stop = Stop()

    def _handle(self, taken: Taken) -> Outcome:
        self.handled.append(taken.content)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def run(self, gateway: Scripted) -> bool:
        target = Target(gateway.url)
        with target.open(5) as client, self.stop:
            taker = Taker(target, client, Source(uri=_URI, lease_seconds=60))
            return Receiver(taker, self._handle, self.told.append, **self.options).run(self.stop)


def _asked(gateway: Scripted) -> list[str]:
    return [request.path.removeprefix("/mq/demo/Queues/jobs/").partition("?")[0] for request in gateway.seen]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(pausing, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(receiving, "SHORTEST_WAIT", 0.02)


def test_one_message_is_acknowledged_after_it_was_handled() -> None:
    watched = _Watched(Outcome.DONE)
    with scripted(_message(1), _DONE) as gateway:
        assert watched.run(gateway)
    assert _asked(gateway) == ["receive", "ack"]
    assert gateway.seen[1].body == b'{"leases":["l1"]}'
    assert (watched.handled, watched.told) == ([b"1"], [])


@pytest.mark.parametrize(
    ("outcome", "delay", "members"),
    [
        (Outcome.AGAIN, None, {}),
        (Outcome.AGAIN, 5.0, {"delay": 5.0}),
        (Outcome.NEVER, 5.0, {"requeue": False}),
    ],
)
def test_what_failed_is_given_back_or_refused_and_others_go_on(
    outcome: Outcome, delay: float | None, members: dict[str, Any]
) -> None:
    watched = _Watched(outcome, Outcome.DONE, number=2, delay_seconds=delay)
    with scripted(_message(1), _DONE, _message(2), _DONE) as gateway:
        assert not watched.run(gateway)
    assert _asked(gateway) == ["receive", "nack", "receive", "ack"]
    assert json.loads(gateway.seen[1].body) == {"leases": ["l1"], **members}
    assert watched.told == []


def test_nothing_within_the_time() -> None:
    watched = _Watched(Outcome.DONE, number=2, wait_seconds=0.05)
    with scripted(_message(1), _DONE, *[_NONE] * 99) as gateway:
        assert not watched.run(gateway)
    assert watched.told == ["no message within 0.05 s"]
    assert len(gateway.seen) <= 2 + 5  # one that answers at once is not asked without a pause


def test_without_patience_it_asks_once() -> None:
    watched = _Watched(wait_seconds=0)
    with scripted(_NONE) as gateway:
        assert not watched.run(gateway)
    assert gateway.seen[0].path.endswith("receive?wait=0.000&lease=60")


def test_more_patience_than_a_request_has() -> None:
    watched = _Watched(Outcome.DONE, wait_seconds=100)
    with scripted(_NONE, _message(1), _DONE) as gateway:
        assert watched.run(gateway)
    assert "wait=20.000" in gateway.seen[0].path


@pytest.mark.parametrize("result", ["expired", "unknown", "elsewhere"])
def test_an_answer_that_came_to_nothing_is_told(result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "SETTLE_SECONDS", 0)
    watched = _Watched(Outcome.DONE)
    with scripted(_message(1), _result(result)) as gateway:
        assert not watched.run(gateway)
    assert len(watched.told) == 1
    assert watched.told[0].startswith("message m1: ")


def test_an_ack_is_repeated_while_the_gateway_is_away() -> None:
    watched = _Watched(Outcome.DONE)
    away = (Answer(status=0), problem(503, "draining"), _result("elsewhere"))
    with scripted(_message(1), *away, _DONE) as gateway:
        assert watched.run(gateway)
    assert _asked(gateway) == ["receive", "ack", "ack", "ack", "ack"]
    assert watched.told == []


def test_and_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "SETTLE_SECONDS", 0.1)
    watched = _Watched(Outcome.DONE)
    with scripted(_message(1), *[Answer(status=0)] * 99) as gateway:
        assert not watched.run(gateway)
    assert len(watched.told) == 1
    assert "cannot be reached" in watched.told[0]
    assert watched.told[0].endswith("it may come again")


@pytest.mark.parametrize(("outcome", "verb"), [(Outcome.DONE, "ack"), (Outcome.AGAIN, "nack")])
def test_an_answer_that_is_refused_ends_it_and_leaves_nothing_leased(outcome: Outcome, verb: str) -> None:
    watched = _Watched(outcome, number=None, delay_seconds=901.0)
    refused = problem(400, "invalid_parameter")
    with scripted(_message(1), refused, _DONE) as gateway, pytest.raises(ClientError, match="400"):
        watched.run(gateway)
    assert _asked(gateway) == ["receive", verb, "nack"]
    assert json.loads(gateway.seen[2].body) == {"leases": ["l1"], "delay": 0}


def test_what_cannot_be_handled_is_given_back_at_once() -> None:
    watched = _Watched(BrokenPipeError("Broken pipe"))
    with scripted(_message(1), _DONE) as gateway, pytest.raises(ClientError, match="message m1: Broken pipe"):
        watched.run(gateway)
    assert _asked(gateway) == ["receive", "nack"]
    assert json.loads(gateway.seen[1].body) == {"leases": ["l1"], "delay": 0}


def test_a_second_signal_gives_back_what_is_under_way() -> None:
    watched = _Watched(KeyboardInterrupt(), number=None)
    with scripted(_message(1), Answer(status=0)) as gateway, pytest.raises(KeyboardInterrupt):
        watched.run(gateway)
    assert _asked(gateway) == ["receive", "nack"]


def test_an_outage_is_told_once() -> None:
    watched = _Watched(Outcome.DONE, Outcome.DONE, KeyboardInterrupt(), number=None)
    away = (problem(503, "draining"), Answer(status=0), Answer(b"", 502))
    answers = (*away, _NONE, _message(1), _DONE, *away, _message(2), _DONE, _message(3), _DONE)
    with scripted(*answers) as gateway, pytest.raises(KeyboardInterrupt):
        watched.run(gateway)
    assert watched.handled == [b"1", b"2", b"3"]
    assert watched.told == ["503 draining: why; trying again"] * 2


def test_a_refusal_that_no_repeat_helps_ends_it() -> None:
    watched = _Watched(number=None)
    with scripted(problem(404, "unknown_destination")) as gateway, pytest.raises(ClientError, match="404"):
        watched.run(gateway)


def test_without_following_an_outage_ends_it() -> None:
    watched = _Watched()
    with scripted(problem(503, "draining")) as gateway, pytest.raises(ClientError, match="503"):
        watched.run(gateway)


class _Asking(_Watched):
    """The end is asked for while a message is handled."""

    def _handle(self, taken: Taken) -> Outcome:
        signal.raise_signal(signal.SIGTERM)
        return super()._handle(taken)


@pytest.mark.parametrize(
    ("number", "outcome", "good"),
    [
        (None, Outcome.DONE, True),
        (None, Outcome.AGAIN, False),
        (1, Outcome.DONE, True),
        (2, Outcome.DONE, False),
    ],
)
def test_what_is_under_way_is_finished_and_answered_for(number: int | None, outcome: Outcome, good: bool) -> None:
    watched = _Asking(outcome, number=number)
    with scripted(_message(1), _DONE) as gateway:
        assert watched.run(gateway) is good
    assert _asked(gateway) == ["receive", "ack" if outcome is Outcome.DONE else "nack"]


def test_what_came_while_the_end_was_asked_for_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Taker.receive

    def late(self: Taker, wait: float, stop: Stop) -> Taken | None:
        taken = receive(self, wait, stop)
        signal.raise_signal(signal.SIGTERM)
        return taken

    monkeypatch.setattr(Taker, "receive", late)
    watched = _Watched(number=None)
    with scripted(_message(1), _DONE) as gateway:
        assert watched.run(gateway)
    assert (_asked(gateway), watched.handled) == (["receive", "nack"], [])
    assert json.loads(gateway.seen[1].body)["delay"] == 0
