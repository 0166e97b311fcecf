"""A Topic with a stream behind it, on the connector in memory, and while a publisher is busy."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from app.config.settings import TopicSettings
from app.connectors.memory import MemoryMQConnector
from app.domain.message import Publication
from app.gateway import stream_topic
from app.gateway.stream import Counts, StreamRequest
from app.gateway.stream_reader import StreamReader
from app.gateway.stream_topic import StreamTopic
from tests.unit.gateway.fakes import SERVICE, FakeConnector, topic, turns

_ID = re.compile(rb"^id: s\.(\d+)\ndata", re.MULTILINE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_topic, "EMPTY_AFTER", 0.02)
    monkeypatch.setattr(stream_topic, "QUIET", 0.0)


class Bench:
    """The Topic, and who publishes to it."""

    def __init__(self, **settings: Any) -> None:
        context = FakeConnector().context
        self.connector = MemoryMQConnector("svc", SERVICE, context)
        self.destination = topic(replay="stream", **settings)
        assert isinstance(self.destination.settings, TopicSettings)
        self.gaps: list[str] = []
        self.held = 0
        self.topic = StreamTopic(
            self.destination,
            self.destination.settings,
            self.connector,
            counts=Counts,
            on_gap=self.gaps.append,
            grew=self._grew,
        )

    def _grew(self, size: int) -> None:
        self.held += size

    async def start(self) -> None:
        await self.connector.start()

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            publication = Publication(body=b"%d" % number, message_id="id")
            await self.connector.publish(self.destination, publication, timeout=1)

    async def open(self, **request: Any) -> StreamReader:
        reader = await self.topic.open(StreamRequest(**request), 5)
        assert isinstance(reader, StreamReader)
        return reader


@pytest.fixture
async def bench() -> Bench:
    bench = Bench(ring_messages=50, linger=0)
    await bench.start()
    return bench


async def _follow(reader: StreamReader, until: int) -> list[int]:
    """The offsets up to that one, taken as a client does."""
    seen: list[int] = []
    async with asyncio.timeout(20):
        while not seen or seen[-1] < until:
            await reader.ready()
            batch = reader.take(500)
            assert batch.end is None
            assert b"event: gap" not in batch.data
            reader.handed_over(batch)
            seen += [int(offset) for offset in _ID.findall(batch.data)]
            await asyncio.sleep(0)
    return seen


async def test_what_is_there_before_is_past(bench: Bench) -> None:
    await bench.publish(0, 1, 2)
    reader = await bench.open()
    assert reader.opening == b"id: s.2\n\n"
    assert not reader.take().data
    await bench.publish(3)
    assert await _follow(reader, 3) == [3]
    await reader.close()


async def test_readers_that_come_back_while_a_publisher_is_busy(bench: Bench) -> None:
    total, chance = 3000, random.Random(11)

    async def publishing() -> None:
        for number in range(total):
            await bench.publish(number)
            if number % 7 == 0:
                await asyncio.sleep(0)

    async def client() -> None:
        after = -1
        while after < total - 1:
            reader = await bench.open(last_event_id=f"s.{after}")
            target = min(total - 1, after + chance.randrange(1, 900))
            seen = await _follow(reader, target)
            assert seen == list(range(after + 1, seen[-1] + 1))
            after = seen[-1]
            await reader.close()

    watcher = await bench.open()  # keeps the subscription, and never reads

    await asyncio.gather(publishing(), *(client() for _ in range(10)))
    await turns(20)
    assert bench.topic.replays.is_idle
    await watcher.close()


async def test_when_the_last_has_gone_nothing_is_left(bench: Bench) -> None:
    await bench.publish(*range(200))
    readers = [await bench.open(last_event_id=f"s.{seen}") for seen in (3, 100, 199)]
    for reader in readers[:2]:
        await _follow(reader, 150)
    for reader in readers:
        await reader.close()
    async with asyncio.timeout(5):
        while not bench.topic.is_idle:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert bench.topic.buffered == 0
    assert bench.held == 0


async def test_memory_that_is_needed_comes_from_the_live_ring_first(bench: Bench) -> None:
    reader = await bench.open()
    await bench.publish(*range(40))
    before = bench.topic.buffered
    freed = bench.topic.give_way(2000)
    assert freed >= 2000
    assert bench.topic.buffered == before - freed
    assert b'"reason":"slow"' in reader.take().data
    assert bench.gaps == ["slow"]
    await reader.close()


@pytest.mark.parametrize("policy", ["latest", "disconnect"])
async def test_a_live_reader_that_falls_behind_keeps_to_its_policy(bench: Bench, policy: Any) -> None:
    reader = await bench.open(slow=policy)
    await bench.publish(*range(200))
    batch = reader.take()
    if policy == "latest":
        assert [int(offset) for offset in _ID.findall(batch.data)] == [199]
    else:
        assert batch.end == "slow"
        again = await bench.open(last_event_id="s.-1")
        assert await _follow(again, 199) == list(range(200))
        await again.close()
    await reader.close()
