"""A stream in memory."""

from __future__ import annotations

import time

import pytest

from app.connectors import memory_stream as module
from app.connectors.base import Delivery, Subscription
from app.connectors.memory_stream import MemoryStream
from app.domain.stream import FIRST, LAST, NEXT, StreamStart, after
from tests.contract.conftest import Recorder
from tests.unit.gateway.fakes import message


class Eager(Recorder):
    """Acknowledges at once."""

    subscription: Subscription

    def on_message(self, delivery: Delivery) -> None:
        super().on_message(delivery)
        if hasattr(self, "subscription"):
            self.subscription.ack(delivery)


def _filled(count: int, max_age: str | None = None, at: float | None = None) -> MemoryStream:
    stream = MemoryStream(max_age)
    for number in range(count):
        stream.append(message(b"%d" % number, received_at=time.time() if at is None else at + number))
    return stream


def _told(recorder: Recorder) -> list[tuple[int | None, str | None]]:
    found: list[tuple[int | None, str | None]] = []
    while not recorder.told.empty():
        delivery = recorder.told.get_nowait()
        assert isinstance(delivery, Delivery)
        found.append((delivery.offset, delivery.missing))
    return found


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (FIRST, [(0, None), (1, None), (2, None)]),
        (LAST, [(2, None)]),
        (NEXT, []),
        (after(0), [(1, None), (2, None)]),
        (StreamStart("time", 101), [(1, None), (2, None)]),
    ],
)
async def test_where_it_begins(start: StreamStart, expected: list[tuple[int, None]]) -> None:
    recorder = Recorder()
    _filled(3, at=100).subscribe(recorder, start, 10)
    assert _told(recorder) == expected


async def test_retention_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 2)
    recorder = Recorder()
    stream = _filled(5)
    stream.subscribe(recorder, after(0), 10)
    assert _told(recorder) == [(3, "expired"), (4, None)]


async def test_a_reader_that_retention_overtakes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 2)
    recorder = Recorder()
    stream = MemoryStream(None)
    subscription = stream.subscribe(recorder, FIRST, 1)
    for number in range(5):
        stream.append(message(b"%d" % number))
    first = recorder.told.get_nowait()
    assert isinstance(first, Delivery)
    assert subscription.ack(first)
    assert _told(recorder) == [(3, "expired")]


@pytest.mark.parametrize(("age", "kept"), [("1h", 3), ("10s", 1), (None, 3)])
async def test_what_is_too_old_goes_but_the_newest_stays(age: str | None, kept: int) -> None:
    recorder = Recorder()
    _filled(3, age, at=time.time() - 100).subscribe(recorder, FIRST, 10)
    assert len(_told(recorder)) == kept


async def test_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3000)
    stream = _filled(100)
    assert stream.bytes <= 3000


async def test_a_long_log_is_read_without_recursion() -> None:
    stream = _filled(5000)
    recorder = Eager()
    recorder.subscription = stream.subscribe(recorder, NEXT, 1)
    late = Eager()
    late.subscription = stream.subscribe(late, FIRST, 1)
    first = late.told.get_nowait()
    assert isinstance(first, Delivery)
    assert late.subscription.ack(first)
    assert len(_told(late)) == 4999


async def test_an_answer_too_many_does_nothing() -> None:
    stream = _filled(1)
    recorder = Recorder()
    subscription = stream.subscribe(recorder, FIRST, 1)
    delivery = recorder.told.get_nowait()
    assert isinstance(delivery, Delivery)
    assert not subscription.nack(delivery)
    assert subscription.ack(delivery)
    assert not subscription.ack(delivery)
    await subscription.close(1)
    stream.append(message(b"1"))
    assert _told(recorder) == []
