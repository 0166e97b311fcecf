"""One client's stream: what is written when, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from app.api.event_stream import (
    CLIENT,
    LARGE_BATCH,
    MEMORY,
    RETRY_MS,
    STALLED,
    EventStream,
    Patience,
    spread_retry_ms,
)
from app.gateway.outbox import Outbox
from app.gateway.stream import Batch, Counts, Reader
from tests.unit.api.asgi import GONE, Call

FOR_EVER = Patience(heartbeat=60, write=60)


def outbox(limit: int = 1 << 20) -> Outbox:
    return Outbox(limit, lambda _size: None)


class Scripted(Reader):
    """A reader whose batches the test gives."""

    opening = b"id: e.0\n\n"

    def __init__(self) -> None:
        super().__init__(Counts())
        self.batches: list[Batch] = []
        self.handed: list[Batch] = []
        self.closed = False

    def give(self, data: bytes, end: str | None = None, events: int = 1) -> None:
        self.batches.append(Batch(data, events, end))
        self.wake()

    def _has_events(self) -> bool:
        return bool(self.batches)

    def _take_events(self, max_bytes: int) -> Batch:
        return self.batches.pop(0)

    def handed_over(self, batch: Batch) -> None:
        self.handed.append(batch)

    async def close(self) -> None:
        self.closed = True


class Seam:
    """What our server adds to ASGI, played by the test."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.aborted = False
        self.closing = False
        self.unsent = [0]
        self.through = False

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return self.callbacks.clear

    def leave(self) -> None:
        self.closing = True
        for callback in self.callbacks:
            callback()

    def extension(self) -> dict[str, Any]:
        return {
            "abort": lambda: setattr(self, "aborted", True),
            "is_closing": lambda: self.closing,
            "write_buffer_size": lambda: self.unsent.pop(0) if len(self.unsent) > 1 else self.unsent[0],
            "write_through": lambda: setattr(self, "through", True),
            "on_disconnect": self.on_disconnect,
        }


class Stream:
    """A stream that runs while the test goes on."""

    def __init__(self, call: Call, patience: Patience = FOR_EVER) -> None:
        self.call = call
        self.reader = Scripted()
        self.events = 0
        self.task = asyncio.ensure_future(
            EventStream(call.exchange(), self.reader, patience, outbox(), self._sent).run()
        )

    def _sent(self, batch: Batch) -> None:
        self.events += batch.events

    async def wrote(self, messages: int) -> None:
        async with asyncio.timeout(5), self.call.changed:
            await self.call.changed.wait_for(lambda: len(self.call.sent) >= messages)

    async def ended(self) -> str:
        async with asyncio.timeout(5):
            return await self.task


def _ours(seam: Seam) -> Call:
    return Call(method="GET", seam=seam.extension())


async def test_first_bytes_come_with_the_head() -> None:
    stream = Stream(Call(method="GET", receives=[]))
    await stream.wrote(2)
    assert stream.call.status == 200
    assert stream.call.head["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.call.head["cache-control"] == "no-store, no-transform"
    assert stream.call.head["x-accel-buffering"] == "no"
    assert "content-length" not in stream.call.head
    retry, comment, opening, rest = stream.call.body.split(b"\n\n")
    assert RETRY_MS[0] <= int(retry.removeprefix(b"retry: ")) <= RETRY_MS[1]
    assert comment == b": welcome"
    assert (opening, rest) == (b"id: e.0", b"")
    stream.task.cancel()


async def test_batches_are_written_handed_over_and_counted() -> None:
    stream = Stream(_ours(Seam()))
    await stream.wrote(2)
    stream.reader.give(b"data: 1\n\n")
    await stream.wrote(3)
    stream.reader.give(b"data: 2\n\ndata: 3\n\n", events=2)
    stream.reader.give(b"", events=0)
    stream.reader.give(b"data: 4\n\n", end="drain")
    assert await stream.ended() == "drain"
    assert [batch.events for batch in stream.reader.handed] == [1, 2, 0, 1]
    assert stream.events == 4
    bodies = [message["body"] for message in stream.call.sent[2:]]
    assert bodies[:3] == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", b"data: 4\n\n"]
    assert bodies[3].startswith(b"retry: ")
    assert stream.call.is_complete


@pytest.mark.parametrize("reason", ["drain", "slow", "cancelled"])
async def test_the_end_has_a_retry_and_a_clean_last_chunk(reason: str) -> None:
    stream = Stream(_ours(Seam()))
    stream.reader.give(b"", end=reason, events=0)
    assert await stream.ended() == reason
    assert stream.call.sent[-1]["body"].startswith(b"retry: ")
    assert stream.call.is_complete


async def test_silence_is_filled_with_comments() -> None:
    stream = Stream(_ours(Seam()), Patience(heartbeat=0.01, write=60))
    await stream.wrote(4)
    assert {message["body"] for message in stream.call.sent[2:4]} == {b": \n\n"}
    stream.reader.give(b"", end="drain")
    assert await stream.ended() == "drain"


async def test_a_client_that_leaves_ends_an_idle_stream_at_once() -> None:
    seam = Seam()
    stream = Stream(_ours(seam))
    await stream.wrote(2)
    await asyncio.sleep(0)
    seam.leave()
    assert await stream.ended() == CLIENT
    assert not seam.callbacks, "the stream did not forget its callback"


async def test_a_client_may_leave_in_the_very_moment_of_a_heartbeat() -> None:
    seam = Seam()
    stream = Stream(_ours(seam), Patience(heartbeat=0.001, write=60))
    await stream.wrote(5)
    seam.leave()
    assert await stream.ended() == CLIENT


async def test_without_our_server_a_leaving_client_is_noticed_too() -> None:
    call = Call(method="GET", receives=[{"type": "http.request", "body": b"", "more_body": False}, GONE])
    assert await Stream(call).ended() == CLIENT


async def test_what_a_gone_client_was_sent_is_not_handed_over() -> None:
    seam = Seam()
    call = _ours(seam)
    original = call.send

    async def send(message: Message) -> None:
        await original(message)
        if message.get("body", b"").startswith(b"data:"):
            seam.closing = True  # the server's send returns, and nobody got anything

    exchange = call.exchange()
    exchange._send = send
    reader = Scripted()
    reader.give(b"data: 1\n\n")
    assert await EventStream(exchange, reader, FOR_EVER, outbox(), lambda _: None).run() == CLIENT
    assert not reader.handed


@pytest.mark.parametrize(("unsent", "tries"), [([9, 9, 9], 1), ([9, 5, 5, 5], 2), ([9, 5, 5, 3, 3, 3], 3)])
async def test_a_client_without_progress_is_cut_off(unsent: list[int], tries: int) -> None:
    seam = Seam()
    call = _ours(seam)
    original, waits = call.send, 0

    async def send(message: Message) -> None:
        nonlocal waits
        if message.get("body", b"").startswith(b"data:"):
            waits += 1
            await asyncio.Event().wait()
        await original(message)

    exchange = call.exchange()
    exchange._send = send
    reader = Scripted()
    reader.give(b"data: 1\n\n")
    stream = EventStream(exchange, reader, Patience(heartbeat=60, write=0.01), outbox(), lambda _: None)
    seam.unsent = [0, *unsent]  # the first is for the opening
    async with asyncio.timeout(5):
        assert await stream.run() == STALLED
    assert seam.aborted
    assert waits == tries
    assert not reader.handed
    assert not seam.callbacks


class Slow:
    """A stream whose client takes a batch only when the test says so."""

    def __init__(self, box: Outbox, data: bytes = b"data: 1\n\n") -> None:
        self.seam = Seam()
        self.taken = asyncio.Event()
        self.waiting = asyncio.Event()
        self.reader = Scripted()
        self.reader.give(data)
        call = _ours(self.seam)
        self._original = call.send
        exchange = call.exchange()
        exchange._send = self._send
        self.task = asyncio.ensure_future(EventStream(exchange, self.reader, FOR_EVER, box, lambda _: None).run())

    async def _send(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.startswith(b"data:"):
            self.seam.unsent = [len(body)]
        elif self.seam.unsent[0]:
            self.waiting.set()
            await self.taken.wait()
            self.seam.unsent = [0]
        await self._original(message)


async def test_a_batch_is_handed_over_when_the_kernel_has_all_of_it() -> None:
    box = outbox()
    slow = Slow(box)
    async with asyncio.timeout(5):
        await slow.waiting.wait()
        assert slow.seam.through
        assert box.buffered == len(b"data: 1\n\n")
        assert not slow.reader.handed
        slow.reader.give(b"", end="drain", events=0)
        slow.taken.set()
        assert await slow.task == "drain"
    assert [batch.data for batch in slow.reader.handed] == [b"data: 1\n\n", b""]
    assert box.buffered == 0


async def test_who_has_waited_longest_goes_where_too_much_waits() -> None:
    box = outbox(100)
    first, second = Slow(box, b"data:" + b"1" * 60), Slow(box, b"data:" + b"2" * 60)
    async with asyncio.timeout(5):
        await first.waiting.wait()
        await second.waiting.wait()
        assert (first.seam.aborted, second.seam.aborted) == (True, False)
        first.taken.set()  # as the server does for a connection that is gone
        assert await first.task == MEMORY
        assert not first.reader.handed
        second.seam.leave()
        second.taken.set()
        assert await second.task == CLIENT
    assert box.buffered == 0


async def test_a_stalled_client_of_another_server_ends_all_the_same() -> None:
    call = Call(method="GET", receives=[])

    async def send(_message: Message) -> None:
        await asyncio.Event().wait()

    exchange = call.exchange()
    exchange._send = send
    stream = EventStream(exchange, Scripted(), Patience(heartbeat=60, write=0.01), outbox(), lambda _: None)
    async with asyncio.timeout(5):
        assert await stream.run() == STALLED


async def test_a_large_batch_leaves_a_turn_to_others() -> None:
    stream = Stream(_ours(Seam()))
    turns: list[int] = []
    for _ in range(3):
        stream.reader.give(b"data: " + b"x" * LARGE_BATCH + b"\n\n")
    stream.reader.give(b"", end="drain", events=0)
    while not stream.task.done():
        turns.append(len(stream.call.sent))
        await asyncio.sleep(0)
    assert len(set(turns)) > 3


async def test_cancelled_anywhere_it_forgets_the_client() -> None:
    seam = Seam()
    stream = Stream(_ours(seam))
    await stream.wrote(2)
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert not seam.callbacks


def test_retries_are_spread() -> None:
    assert len({spread_retry_ms() for _ in range(50)}) > 10
