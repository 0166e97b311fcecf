"""What every stream does: become ready, be taken, end."""

from __future__ import annotations

import asyncio

from app.gateway.stream import Batch, Counts, Reader
from tests.unit.gateway.fakes import turns


class Plain(Reader):
    """A reader with a list of events."""

    def __init__(self) -> None:
        super().__init__(Counts())
        self.events: list[bytes] = []

    def _has_events(self) -> bool:
        return bool(self.events)

    def _take_events(self, max_bytes: int) -> Batch:
        return Batch(self.events.pop(0), 1) if self.events else Batch(b"", 0)

    async def close(self) -> None:
        """Nothing to give back."""


async def test_waking_without_a_reason_is_not_being_ready() -> None:
    reader = Plain()
    task = asyncio.ensure_future(reader.ready())
    await turns()
    for _ in range(3):
        reader.wake()
        reader.wake()
        await turns()
    assert not task.done()
    reader.events.append(b"a")
    reader.wake()
    await turns()
    assert task.done()


async def test_a_reader_that_has_something_is_ready_at_once() -> None:
    reader = Plain()
    reader.events.append(b"a")
    await reader.ready()
    assert reader.take() == Batch(b"a", 1)


async def test_a_notice_comes_first_and_only_the_newest() -> None:
    reader = Plain()
    task = asyncio.ensure_future(reader.ready())
    await turns()
    reader.push(b"down")
    await turns()
    assert task.done()
    reader.push(b"up")
    reader.events.append(b"a")
    assert reader.take() == Batch(b"upa", 1)
    assert reader.take() == Batch(b"", 0)


async def test_what_a_stream_tells_of_itself_is_never_replaced() -> None:
    reader = Plain()
    task = asyncio.ensure_future(reader.ready())
    await turns()
    reader.tell(b"gap")
    await turns()
    assert task.done()
    reader.push(b"down")
    reader.push(b"up")
    reader.tell(b"more")
    reader.events.append(b"a")
    assert reader.take() == Batch(b"upgapmorea", 1)
    assert not reader.is_ready


class Owning:
    """Takes what readers have."""

    def __init__(self) -> None:
        self.woken_by: list[Reader] = []

    def woken(self, reader: Reader) -> None:
        self.woken_by.append(reader)


def test_a_reader_wakes_its_owner() -> None:
    reader, owner = Plain(), Owning()
    reader.owner = owner
    reader.wake()
    reader.push(b"x")
    reader.end("drain")
    assert owner.woken_by == [reader] * 3


async def test_the_first_end_counts_and_waits_for_the_queued() -> None:
    reader = Plain()
    reader.events += [b"a", b"b"]
    reader.end("drain")
    reader.end("cancelled")
    await reader.ready()
    assert [reader.take().end for _ in range(3)] == [None, "drain", "drain"]


async def test_only_what_was_handed_over_is_counted() -> None:
    reader = Plain()
    reader.events += [b"a", b"b"]
    batch = reader.take()
    reader.take()
    assert reader._counts.delivered == 0
    reader.handed_over(batch)
    assert reader._counts.delivered == 1
