"""Replays of a stream: shared, few at a time, and never in the way of anybody but who stalls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.config.settings import TopicSettings
from app.connectors.base import Delivery, Listener, Subscription
from app.domain.errors import BrokerRejected, BrokerUnavailable, NotSupportedByBroker
from app.domain.stream import FIRST, StreamStart, after
from app.gateway import replay, replays, stream_topic
from app.gateway.replay import Replay
from app.gateway.stream import Counts, StreamRequest
from app.gateway.stream_reader import StreamReader
from app.gateway.stream_topic import StreamTopic
from tests.unit.gateway.fakes import message, topic, turns
from tests.unit.gateway.stream_broker import StreamBroker
from tests.unit.wire.event_source import EventSource


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_topic, "EMPTY_AFTER", 0.05)
    monkeypatch.setattr(stream_topic, "QUIET", 0.0)
    monkeypatch.setattr(stream_topic, "REPLAY_PREFETCH", 4)
    monkeypatch.setattr(replay, "RETRY", 0.0)


class Bench:
    """A Topic on a stream of `count` messages; its live ring has the last one."""

    def __init__(self, count: int = 50, **settings: Any) -> None:
        self.broker = StreamBroker()
        for number in range(count):
            self.broker.log.publish(b"%d" % number)
        self.grown: list[int] = []
        destination = topic(replay="stream", prefetch=1, **settings)
        assert isinstance(destination.settings, TopicSettings)
        self.topic = StreamTopic(
            destination,
            destination.settings,
            self.broker,
            counts=Counts,
            on_gap=lambda _reason: None,
            grew=self.grown.append,
        )

    async def open(self, **request: Any) -> StreamReader:
        opening = asyncio.ensure_future(self.topic.open(StreamRequest(**request), 5))
        while not opening.done():
            await turns(2)
            self.broker.pump()
        reader = await opening
        assert isinstance(reader, StreamReader)
        await turns()
        return reader

    async def flow(self) -> None:
        self.broker.pump()
        await turns()

    @property
    def running(self) -> list[Replay]:
        return list(self.topic.replays._running)


def _offsets(reader: StreamReader, max_bytes: int = 1) -> list[int]:
    """Of what it takes at once."""
    events = EventSource.read(reader.take(max_bytes).data).events
    return [int(event.last_event_id.removeprefix("s.")) for event in events]


async def test_readers_near_each_other_share_a_replay() -> None:
    bench = Bench()
    readers = [await bench.open(last_event_id=f"s.{seen}") for seen in (3, 5, 4)]
    assert [reading.start for reading in bench.broker.replays] == [after(3)]
    for reader in readers:
        await reader.close()
    await turns()
    assert bench.topic.replays.is_idle
    assert bench.broker.replays == []


async def test_who_waits_together_is_served_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "TOGETHER", 1)
    monkeypatch.setattr(replay, "NEARBY", 10)
    bench = Bench()
    first = await bench.open(last_event_id="s.40")
    waiting = [await bench.open(last_event_id=f"s.{seen}") for seen in (12, 8, 25)]
    assert len(bench.broker.replays) == 1
    await first.close()
    await turns()
    (reading,) = bench.broker.replays
    assert reading.start == after(8), "from the lowest near the one that waited longest"
    assert [reader in bench.running[0].followers for reader in waiting] == [True, True, False]


async def test_who_is_far_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "NEARBY", 10)
    bench = Bench()
    for seen in (1, 20, 40):
        await bench.open(last_event_id=f"s.{seen}")
    assert [reading.start for reading in bench.broker.replays] == [after(1), after(20), after(40)]


async def test_a_reader_that_stalls_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RING_MESSAGES", 5)
    bench = Bench()
    stalled, quick = await bench.open(last_event_id="s.1"), await bench.open(last_event_id="s.2")
    seen: list[int] = []
    for _ in range(60):
        await bench.flow()
        seen += _offsets(quick)
    assert seen == list(range(3, 50))
    behind: list[int] = []
    for _ in range(120):
        await bench.flow()
        behind += _offsets(stalled)
    assert behind == list(range(2, 50))
    await turns()
    assert bench.topic.replays.is_idle


async def test_what_a_reader_took_is_acknowledged_and_no_more() -> None:
    bench = Bench()
    reader = await bench.open(last_event_id="s.9")
    await bench.flow()
    (reading,) = bench.broker.replays
    assert reading.acked == []
    assert _offsets(reader) == [10]
    assert reading.acked == [10]
    assert len(reading.unacked) == 3


async def test_what_came_before_the_subscription_was_known_is_acknowledged_later() -> None:
    broker = StreamBroker()
    broker.log.publish(b"0")
    one = Replay(topic().uri, FIRST, lambda: None)

    async def subscribe(listener: Listener, start: StreamStart, timeout: float) -> Subscription:
        subscription = await broker.subscribe(
            topic(), listener, acknowledge=True, prefetch=1, timeout=timeout, start=start
        )
        broker.pump()
        one.taken(1)
        return subscription

    running = asyncio.ensure_future(one.run(subscribe))
    await turns()
    assert broker.replays[0].acked == [0]
    one.over.set()
    await running
    assert broker.replays == []


async def test_a_link_that_is_down_is_waited_for() -> None:
    bench = Bench()
    live = await bench.open()
    bench.broker.refusals += [BrokerUnavailable("no"), BrokerUnavailable("no")]
    reader = await bench.open(last_event_id="s.45")
    while bench.broker.refusals:
        await turns()
    await turns()
    await bench.flow()
    assert _offsets(reader, 1 << 16) == [46, 47, 48, 49]
    assert _offsets(live) == []


@pytest.mark.parametrize("refusal", [BrokerRejected("no"), NotSupportedByBroker("no"), RuntimeError("a defect")])
async def test_what_the_broker_refuses_ends_the_reader(refusal: Exception) -> None:
    bench = Bench()
    await bench.open()
    bench.broker.refusals.append(refusal)
    reader = await bench.open(last_event_id="s.4")
    await turns()
    assert reader.take().end == "cancelled"
    assert bench.topic.replays.is_idle


async def test_a_replay_nobody_reads_for_too_long_is_asked_for_again() -> None:
    bench = Bench()
    reader = await bench.open(last_event_id="s.4")
    await bench.flow()
    (reading,) = bench.broker.replays
    bench.running[0].on_withdrawn("x")
    await turns()
    assert bench.broker.replays != [reading]
    await bench.flow()
    assert _offsets(reader) == [5]


async def test_memory_that_is_needed_ends_readers_of_the_past() -> None:
    bench = Bench(0)
    for _ in range(5):
        bench.broker.log.publish(b"x" * 800_000)
    reader = await bench.open(last_event_id="s.-1")
    await bench.flow()
    assert bench.topic.buffered > 3_000_000
    bench.topic.give_way(1 << 30)
    assert reader._end == "memory"
    await reader.close()
    await turns()
    assert bench.topic.replays.buffered == 0
    assert sum(bench.grown) >= 0


async def test_older_messages_of_the_first_chunk_are_left_out() -> None:
    one = Replay(topic().uri, StreamStart("time", 100), lambda: None)
    for offset, told in enumerate(["98", "99", "100", "98"]):
        one.on_message(Delivery(message(b"x", headers={"timestamp": told}), str(offset), 1, offset))
    assert [one.ring.mark(cursor) for cursor in range(1, one.ring.last + 1)] == [2, 3]


async def test_at_shutdown_nothing_is_unsubscribed() -> None:
    bench = Bench()
    await bench.open(last_event_id="s.4")
    before = list(bench.broker.readings)
    bench.topic.stop()
    await turns()
    assert bench.broker.readings == before
    assert all(task.cancelled() for task in bench.topic.replays._running.values())
