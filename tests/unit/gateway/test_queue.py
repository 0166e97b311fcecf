"""A stream of a Queue: acked after the socket took it, else given back."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.gateway.queue import QueueReader
from app.gateway.stream import Counts, Format
from tests.unit.gateway.fakes import FakeSubscription, turns
from tests.unit.wire.event_source import EventSource


class Bench:
    """A reader and its subscription."""

    def __init__(self, form: Format = "data") -> None:
        self.counts = Counts()
        self.left: list[QueueReader] = []
        self.grown: list[int] = []
        self.reader = QueueReader(form, self.left.append, self.grown.append)
        self.subscription = FakeSubscription(self.reader)
        self.reader.attach(self.subscription, self.counts)

    def take(self, max_bytes: int = 65_536) -> list[str]:
        """Take a batch and hand it over; the data of its events."""
        batch = self.reader.take(max_bytes)
        self.reader.handed_over(batch)
        return [event.data for event in EventSource.read(batch.data).events]


async def test_an_event_is_acked_only_after_it_was_handed_over() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a", b"b")
    batch = bench.reader.take()
    assert batch.events == 2
    assert bench.subscription.acked == []
    assert bench.counts.delivered == 0
    bench.reader.handed_over(batch)
    assert bench.subscription.acked == ["1", "2"]
    assert bench.counts.delivered == 2
    bench.reader.handed_over(bench.reader.take())
    assert bench.subscription.acked == ["1", "2"]


async def test_what_was_taken_and_not_handed_over_is_never_acked() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a", b"b")
    bench.reader.take(1)
    await bench.reader.close()
    await bench.reader.close()
    assert bench.subscription.acked == []
    assert bench.subscription.closed == 1
    assert bench.left == [bench.reader, bench.reader]


async def test_a_batch_is_bounded_and_has_at_least_one_event() -> None:
    bench = Bench()
    bench.subscription.deliver(*[b"x" * 100] * 5)
    assert len(bench.take(1)) == 1
    assert bench.subscription.acked == ["1"]
    assert len(bench.take(150)) == 2
    assert len(bench.take()) == 2


async def test_events_of_a_queue_have_no_position() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a")
    assert bench.reader.opening == b""
    assert b"id:" not in bench.reader.take().data


async def test_an_envelope_has_no_id() -> None:
    bench = Bench("envelope")
    bench.subscription.deliver(b"a")
    (data,) = bench.take()
    assert json.loads(data)["id"] is None
    assert json.loads(data)["body"] == "a"


async def test_ready_waits_for_a_message() -> None:
    bench = Bench()
    task = asyncio.ensure_future(bench.reader.ready())
    await turns()
    assert not task.done()
    bench.subscription.deliver(b"a")
    await turns()
    assert task.done()


async def test_what_is_here_and_under_way_is_counted() -> None:
    bench = Bench()
    bench.subscription.deliver(b"x" * 10, b"x" * 10)
    assert bench.reader.buffered == 20
    batch = bench.reader.take(1)
    assert bench.reader.buffered == 20
    bench.reader.handed_over(batch)
    assert bench.reader.buffered == 10
    bench.take()
    assert bench.reader.buffered == 0


async def test_at_the_end_nothing_more_is_handed_out() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a", b"b")
    bench.reader.end("drain")
    batch = bench.reader.take()
    assert (batch.data, batch.events, batch.end) == (b"", 0, "drain")
    await bench.reader.ready()
    assert bench.subscription.acked == []


async def test_after_a_lost_link_the_broker_gives_it_to_somebody_else() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a")
    bench.reader.on_lost()
    bench.reader.on_restored()
    assert bench.reader.take().data == b""
    bench.subscription.deliver(b"b")
    assert bench.take() == ["b"]
    assert bench.subscription.acked == ["2"]


async def test_when_the_broker_ends_it_the_stream_ends_and_nothing_is_acked() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a")
    batch = bench.reader.take()
    bench.reader.on_cancelled("deleted")
    bench.reader.handed_over(batch)
    assert bench.subscription.acked == []
    assert bench.reader.take().end == "cancelled"
    await bench.reader.close()
    assert bench.subscription.closed == 0


@pytest.mark.parametrize("late", [True, False])
async def test_a_message_before_the_subscription_is_known_is_kept(*, late: bool) -> None:
    reader = QueueReader("data", lambda _reader: None, lambda _size: None)
    subscription = FakeSubscription(reader)
    subscription.deliver(b"a")
    if late:
        reader.attach(subscription, Counts())
    reader.handed_over(reader.take())
    assert subscription.acked == (["1"] if late else [])


async def test_what_went_back_is_not_shown() -> None:
    bench = Bench()
    bench.subscription.deliver(b"a", b"b", b"c")
    bench.reader.on_withdrawn("2")
    bench.reader.on_withdrawn("9")
    assert bench.take() == ["a", "c"]
    assert bench.subscription.acked == ["1", "3"]


async def test_who_gives_way_hands_one_message_over_and_ends() -> None:
    bench = Bench()
    bench.subscription.deliver(b"aa", b"bb", b"cc")
    assert bench.reader.give_way() == 4
    bench.subscription.deliver(b"dd")
    batch = bench.reader.take()
    assert (batch.events, batch.end) == (1, "memory")
    bench.reader.handed_over(batch)
    assert bench.subscription.acked == ["1"]
    assert bench.reader.buffered == sum(bench.grown) == 0


async def test_who_gives_way_while_it_writes_keeps_only_that() -> None:
    bench = Bench()
    bench.subscription.deliver(b"aa", b"bb", b"cc")
    batch = bench.reader.take(1)
    assert bench.reader.give_way() == 4
    bench.reader.handed_over(batch)
    assert bench.subscription.acked == ["1"]
    assert bench.reader.take().end == "memory"


async def test_every_change_is_told() -> None:
    bench = Bench()
    bench.subscription.deliver(b"aa", b"bb", b"cc")
    assert sum(bench.grown) == 6
    bench.take(1)
    assert sum(bench.grown) == 4
    bench.reader.on_withdrawn("2")
    assert sum(bench.grown) == 2
    bench.reader.on_lost()
    assert sum(bench.grown) == 0
    bench.subscription.deliver(b"dd")
    bench.reader.take()
    await bench.reader.close()
    assert sum(bench.grown) == 0
