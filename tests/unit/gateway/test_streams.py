"""All open streams of a process."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from prometheus_client import generate_latest

from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.domain.errors import BrokerUnavailable
from app.domain.link import LinkState
from app.domain.uri import MqUri
from app.gateway.queue import QueueReader
from app.gateway.stream import Counts, Reader, StreamRequest
from app.gateway.streams import Streams
from app.gateway.takings import Takings
from app.gateway.topic_reader import TopicReader
from app.telemetry.metrics import Metrics
from tests.unit.gateway.fakes import FakeConnector, Timers, queue, topic, turns
from tests.unit.wire.event_source import EventSource


class Bench:
    """Streams over one connector."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.counts: dict[MqUri, Counts] = {}
        self.grown: list[int] = []
        self.takings = Takings("here", self.metrics, self.count, self.grown.append, linger=60)
        self.streams = Streams(self.metrics, self.count, self.grown.append, self.takings)
        self.connector = FakeConnector()

    def count(self, uri: MqUri) -> Counts:
        return self.counts.setdefault(uri, Counts())

    async def open(self, destination: Destination, **request: Any) -> Reader:
        return await self.streams.open(destination, self.connector, StreamRequest(**request), 5)

    def keep(self, *names: str) -> None:
        for name in names:
            destination = topic(name, keep=True)
            assert isinstance(destination.settings, TopicSettings)
            self.streams.keep(destination, destination.settings, self.connector)


def _words(reader: Reader) -> list[str]:
    """What a reader is told of its link."""
    return [json.loads(event.data)["link"] for event in EventSource.read(reader.take().data).events]


async def test_a_topic_is_fanned_out_and_a_queue_is_shared() -> None:
    bench = Bench()
    status, jobs = topic(), queue(prefetch=3)
    readers = [await bench.open(destination) for destination in (status, status, jobs, jobs)]
    assert [type(reader) for reader in readers] == [TopicReader, TopicReader, QueueReader, QueueReader]
    assert [(asked["acknowledge"], asked["prefetch"], asked["timeout"]) for asked in bench.connector.asked] == [
        (False, 10, 5),
        (True, 3, 5),
        (True, 3, 5),
    ]
    assert (bench.streams.readers(status.uri), bench.streams.readers(jobs.uri)) == (2, 2)
    assert bench.streams.readers(queue("other").uri) == 0


async def test_events_of_each_format() -> None:
    bench = Bench()
    plain, wrapped = await bench.open(queue()), await bench.open(queue(), format="envelope")
    for subscription in bench.connector.subscriptions:
        subscription.deliver(b"a")
    assert EventSource.read(plain.take().data).events[0].data == "a"
    assert '"body":"a"' in EventSource.read(wrapped.take().data).events[0].data


async def test_what_cannot_be_opened_leaves_nothing_behind() -> None:
    bench = Bench()
    for destination in (queue(), topic()):
        bench.connector.refusals.append(BrokerUnavailable("down"))
        with pytest.raises(BrokerUnavailable):
            await bench.open(destination)
    assert (bench.streams._queues, bench.counts) == ({}, {})


async def test_a_closed_queue_reader_leaves_nothing_behind() -> None:
    bench = Bench()
    one, two = await bench.open(queue()), await bench.open(queue())
    await one.close()
    await one.close()
    assert bench.streams.readers(queue().uri) == 1
    await two.close()
    await two.close()
    assert bench.streams._queues == {}
    assert [subscription.closed for subscription in bench.connector.subscriptions] == [1, 1]


async def test_topics_nobody_needs_make_way_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", timers.call_later, raising=False)
    bench = Bench()
    used, idle = await bench.open(topic("used")), await bench.open(topic("idle", linger=1))
    await idle.close()
    timers.pass_time(1)
    await turns()
    await bench.open(topic("new"))
    assert {uri.name for uri in bench.streams._topics} == {"used", "new"}
    assert await bench.open(topic("used")) is not used
    assert len(bench.connector.asked) == 3


async def test_a_topic_that_is_being_opened_is_needed() -> None:
    bench = Bench()
    bench.connector.open.clear()
    task = asyncio.ensure_future(bench.open(topic("slow")))
    other = asyncio.ensure_future(bench.open(topic("other")))
    await turns()
    bench.connector.open.set()
    await asyncio.gather(task, other)
    assert bench.streams.readers(topic("slow").uri) == 1


async def test_every_topic_that_is_kept_is_subscribed_and_shared_with_its_readers() -> None:
    bench = Bench()
    bench.keep("a", "b", "c")
    await turns()
    assert sorted(asked["uri"].name for asked in bench.connector.asked) == ["a", "b", "c"]
    for subscription in bench.connector.subscriptions:
        subscription.deliver(b"before")
    for name in ("a", "b", "c"):
        reader = await bench.open(topic(name, keep=True), start="earliest")
        assert EventSource.read(reader.take().data).events[0].data == "before"
    assert len(bench.connector.asked) == 3
    await bench.streams.close(5)
    assert bench.streams._keepers == {}


async def test_what_is_held_by_service_and_in_all() -> None:
    bench = Bench()
    await bench.open(topic())
    bench.connector.latest.deliver(b"x" * 1000)
    ring = bench.streams.buffered()
    assert ring > 1000
    assert bench.grown == [ring]
    await bench.open(queue())
    bench.connector.latest.deliver(b"x" * 1000)
    assert bench.streams.buffered() == bench.streams.buffered("svc") == ring + 1000
    assert bench.streams.buffered("other") == 0


async def test_the_fullest_rings_give_way_first() -> None:
    bench = Bench()
    for name, number in (("small", 3), ("large", 10)):
        await bench.open(topic(name))
        bench.connector.latest.deliver(*[b"x" * 1000] * number)
    before = {uri.name: kept.buffered for uri, kept in bench.streams._topics.items()}
    bench.streams.give_way(3000)
    after = {uri.name: kept.buffered for uri, kept in bench.streams._topics.items()}
    assert before["large"] - after["large"] >= 3000
    assert before["small"] == after["small"]
    bench.streams.give_way(1 << 30)
    assert bench.streams.buffered() == 2 * before["small"] // 3


async def test_gaps_are_counted_by_service_and_reason() -> None:
    bench = Bench()
    await bench.open(topic(), last_event_id="foreign.1")
    assert bench.counts[topic().uri].gaps == 1
    exposition = generate_latest(bench.metrics.registry).decode()
    assert 'mq_gateway_gaps_total{reason="restart",service="svc"} 1.0' in exposition


# The link.


async def test_who_asked_is_told_when_the_link_goes_up_or_down_and_only_then() -> None:
    bench = Bench()
    asked, silent = await bench.open(topic(), status=True), await bench.open(queue())
    told = []
    for state in (
        LinkState.CONNECTING,
        LinkState.UP,
        LinkState.CONNECTING,
        LinkState.DOWN,
        LinkState.CONNECTING,
        LinkState.UP,
        LinkState.DRAINING,
        LinkState.CLOSED,
    ):
        bench.streams.tell_link("svc", state)
        bench.streams.tell_link("other", state)
        told.append(_words(asked))
    assert told == [[], ["up"], ["down"], [], [], ["up"], [], ["down"]]
    assert silent.take().data == b""


async def test_a_queue_stream_can_ask_too_and_a_reader_that_is_gone_costs_nothing() -> None:
    bench = Bench()
    reader = await bench.open(queue(), status=True)
    bench.streams.tell_link("svc", LinkState.UP)
    assert _words(reader) == ["up"]
    await reader.close()
    bench.connector.subscriptions.clear()
    del reader
    gc.collect()
    assert len(bench.streams._status["svc"]) == 0


# The end.


async def test_the_end_reaches_every_stream() -> None:
    bench = Bench()
    readers = [await bench.open(destination) for destination in (topic("a"), topic("a"), topic("b"), queue())]
    bench.streams.end_all("drain")
    assert [reader.take().end for reader in readers] == ["drain"] * 4


async def test_closing_gives_back_what_queues_hold_also_when_one_fails_and_leaves_topics_to_their_link(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    for destination in (queue("a"), queue("b"), topic()):
        await bench.open(destination)
    first = bench.connector.subscriptions[0]

    async def broken(timeout: float) -> None:
        raise OSError("no route")

    first.close = broken  # type: ignore[method-assign]
    bench.keep("kept")
    bench.connector.open.clear()
    await turns()
    await bench.streams.close(5)
    assert [subscription.closed for subscription in bench.connector.subscriptions[1:3]] == [1, 0]
    assert bench.streams._queues == {}
    assert caplog.messages == ["closing streams failed: no route"]
