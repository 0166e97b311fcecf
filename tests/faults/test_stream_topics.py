"""Readers of a Topic with a stream behind it, through the whole gateway: resume anywhere, over whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.config.settings import Settings
from app.connectors.stomp import subscription
from app.domain.link import LinkState
from app.domain.uri import MqUri
from app.gateway import replays, stream_reader, stream_topic
from app.gateway.gateway import Gateway
from app.gateway.stream import Reader, StreamRequest
from tests.contract.conftest import WAIT
from tests.faults.conftest import FAST
from tests.faults.stream_peer import StreamPeer
from tests.unit.wire.event_source import EventSource

URI = MqUri.parse("svc::Topics::alerts")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_topic, "EMPTY_AFTER", 0.1)
    monkeypatch.setattr(stream_reader, "AHEAD_SECONDS", 0.1)
    monkeypatch.setattr(subscription, "SAME_WITHIN", 0.5)


@contextlib.asynccontextmanager
async def replica(peer: StreamPeer, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway on this broker; several are replicas."""
    service = {
        "hosts": [peer.address],
        "user": "guest",
        "password": "secret",
        "heartbeat_ms": [0, 0],
        "reconnect": FAST,
        "topics": {"alerts": {"replay": "stream", "ring_messages": 3, **settings}},
    }
    async with Gateway(Settings.model_validate({"services": {"svc": service}})) as gateway:
        yield gateway


class Client:
    """What a client of the gateway sees."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._events = EventSource.read(reader.opening).events

    @classmethod
    async def open(cls, gateway: Gateway, **request: Any) -> Client:
        destination = gateway.resolve(URI)
        return cls(await gateway.open_stream(destination, StreamRequest(**request), timeout=WAIT))

    @property
    def position(self) -> str:
        return EventSource.read(self.reader.opening).last_event_id

    async def next(self, count: int = 1) -> list[tuple[str, str]]:
        """The next events: position and body, or the reason of a gap."""
        async with asyncio.timeout(WAIT):
            while len(self._events) < count:
                await self.reader.ready()
                batch = self.reader.take(1)
                self.reader.handed_over(batch)
                self._events += EventSource.read(batch.data).events
                assert batch.end is None or len(self._events) >= count, batch.end
        found, self._events = self._events[:count], self._events[count:]
        return [
            (each.last_event_id, json.loads(each.data)["reason"] if each.type == "gap" else each.data) for each in found
        ]

    async def nothing(self, seconds: float = 0.1) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reader.ready()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def events(*numbers: int) -> list[tuple[str, str]]:
    return [(f"s.{number}", str(number)) for number in numbers]


def fill(peer: StreamPeer, *numbers: int) -> None:
    peer.publish(*(b"%d" % number for number in numbers))


async def test_a_reader_begins_now_and_knows_where_that_is() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, 0, 1, 2)
        client = await Client.open(gateway)
        assert client.position == "s.2"
        fill(peer, 3, 4)
        assert await client.next(2) == events(3, 4)


@pytest.mark.parametrize("form", ["data", "envelope", "cloudevents"])
async def test_every_format_has_the_positions_of_the_stream(form: str) -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(6))
        client = await Client.open(gateway, format=form, last_event_id="s.0")
        assert [position for position, _ in await client.next(5)] == [f"s.{offset}" for offset in range(1, 6)]


async def test_who_opens_it_after_another_gave_up_knows_where_it_stands_too() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, 0, 1, 2)
        peer.delivering = False
        first = asyncio.ensure_future(Client.open(gateway))
        await until(lambda: (found := gateway._streams._topics.get(URI)) is not None and found._upstream is not None)
        first.cancel()
        peer.delivering = True
        peer.pump_soon()
        assert (await Client.open(gateway)).position == "s.2"


async def test_an_empty_stream_has_a_position_too() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        client = await Client.open(gateway)
        assert client.position == "s.-1"
        await client.reader.close()
        fill(peer, 0, 1)
        again = await Client.open(gateway, last_event_id="s.-1")
        assert await again.next(2) == events(0, 1)


@pytest.mark.parametrize("seen", range(-1, 10))
async def test_sse_case_35_any_position_is_good_on_another_replica(seen: int) -> None:
    async with StreamPeer.serve() as peer, replica(peer) as other:
        fill(peer, *range(8))
        watcher = await Client.open(other)
        fill(peer, 8, 9)
        assert await watcher.next(2) == events(8, 9)
        async with replica(peer) as gateway:
            client = await Client.open(gateway, last_event_id=f"s.{seen}")
            assert client.position == f"s.{seen}"
            assert await client.next(9 - seen) == events(*range(seen + 1, 10))
            fill(peer, 10)
            assert await client.next() == await watcher.next() == events(10)
            await client.nothing()


async def test_earliest_is_all_there_is() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(20))
        peer.log.expire(5)
        client = await Client.open(gateway, start="earliest")
        assert client.position == ""
        assert await client.next(15) == events(*range(5, 20))
        fill(peer, 20)
        assert await client.next() == events(20)


async def test_a_time_is_a_beginning() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        for number in range(20):
            peer.log.publish(b"%d" % number, 1000 + number)
        client = await Client.open(gateway, since=1005)
        assert await client.next(15) == events(*range(5, 20))


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("s.2", [("s.9", "expired"), *events(10)]),
        ("s.-1", [("s.9", "expired"), *events(10)]),
        ("s.9", events(10)),
        ("s.99", [("s.9", "restart"), *events(10)]),
        ("abcdefgh.3", [("s.9", "restart"), *events(10)]),
        ("s.007", [("s.9", "restart"), *events(10)]),
    ],
)
async def test_what_cannot_be_continued_is_told(position: str, expected: list[tuple[str, str]]) -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(20))
        peer.log.expire(10)
        client = await Client.open(gateway, last_event_id=position)
        assert await client.next(len(expected)) == expected
        assert await client.next(9) == events(*range(11, 20))


async def test_a_foreign_position_on_an_empty_stream_is_told_at_once() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        for position in ("s.5", "foreign.1"):
            client = await Client.open(gateway, last_event_id=position)
            assert await client.next() == [("s.-1", "restart")]
            await client.reader.close()


async def test_a_position_ahead_of_the_ring_may_come_from_a_faster_replica() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, 0, 1)
        watcher = await Client.open(gateway)
        peer.delivering = False
        fill(peer, 2, 3, 4)
        client = await Client.open(gateway, last_event_id="s.3")
        peer.delivering = True
        peer.pump_soon()
        assert await client.next() == events(4)
        assert await watcher.next(3) == events(2, 3, 4)


async def test_sse_case_52_a_lost_link_is_no_gap() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, 0)
        live = await Client.open(gateway)
        fill(peer, 1)
        assert await live.next() == events(1)
        past = await Client.open(gateway, start="earliest")
        for number in (2, 5):
            peer.close_all()
            fill(peer, number, number + 1)
            await until(lambda: gateway.link_states()["svc"] == LinkState.UP and bool(peer.reading))
            fill(peer, number + 2)
            assert await live.next(3) == events(number, number + 1, number + 2)
        assert await past.next(8) == events(*range(8))


async def test_what_retention_took_during_an_outage_is_told_to_all() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, 0)
        clients = [await Client.open(gateway) for _ in range(2)]
        peer.close_all()
        fill(peer, 1, 2, 3)
        peer.log.expire(2)
        for client in clients:
            assert await client.next(3) == [("s.1", "expired"), *events(2, 3)]


async def test_a_stream_made_anew_ends_its_readers() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(5))
        client = await Client.open(gateway)
        peer.close_all()
        peer.delete()
        await until(lambda: bool(peer.reading))
        fill(peer, 100)
        async with asyncio.timeout(WAIT):
            await client.reader.ready()
        assert client.reader.take().end == "cancelled"
        await client.reader.close()
        again = await Client.open(gateway, last_event_id="s.4")
        assert await again.next(2) == [("s.-1", "restart"), ("s.0", "100")]


async def test_one_subscription_feeds_everybody() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(30))
        live = [await Client.open(gateway) for _ in range(10)]
        assert [reader for reader in peer.readers.values() if reader.at >= 29] == list(peer.readers.values())
        assert len(peer.readers) == 1
        past = [await Client.open(gateway, last_event_id=f"s.{seen}") for seen in range(10)]
        results = await asyncio.gather(*(client.next(29 - seen) for seen, client in enumerate(past)))
        assert results == [events(*range(seen + 1, 30)) for seen in range(10)]
        fill(peer, 30)
        for client in (*live, *past):
            assert await client.next() == events(30)
        await until(lambda: len(peer.readers) == 1)
        # One declaration, one live reader, and never more replays than may be at the same time.
        assert peer.count("SUBSCRIBE") <= 2 + 10


async def test_replays_beyond_the_limit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "TOGETHER", 1)
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(3000))
        first = await Client.open(gateway, last_event_id="s.1000")
        second = await Client.open(gateway, last_event_id="s.10")
        assert await first.next(5) == events(*range(1001, 1006))
        await second.nothing()
        assert len(peer.readers) == 2
        await first.reader.close()
        assert await second.next(5) == events(*range(11, 16))


async def test_turns_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "TOGETHER", 1)
    monkeypatch.setattr(replays, "TURN_SECONDS", 0.05)
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(3000))
        stalled = await Client.open(gateway, last_event_id="s.1000")
        assert await stalled.next(1) == events(1001)
        second = await Client.open(gateway, last_event_id="s.10")
        assert await second.next(5) == events(*range(11, 16))
        assert await stalled.next(5) == events(*range(1002, 1007))


async def test_a_replay_waits_for_its_reader() -> None:
    async with StreamPeer.serve() as peer, replica(peer) as gateway:
        fill(peer, *range(2000))
        client = await Client.open(gateway, start="earliest")
        assert await client.next(2) == events(0, 1)
        await asyncio.sleep(0.05)
        furthest = min(reader.at for reader in peer.readers.values())
        assert furthest <= 2 + stream_topic.REPLAY_PREFETCH + 1
        assert await client.next(1998) == events(*range(2, 2000))


async def test_everything_is_acknowledged_when_all_have_gone() -> None:
    async with StreamPeer.serve() as peer, replica(peer, linger=0) as gateway:
        peer.chunk = 50
        fill(peer, *range(1000))
        clients = [await Client.open(gateway, last_event_id=f"s.{seen}") for seen in (3, 400, 800)]
        for client in clients:
            await client.next(3)
            await client.reader.close()
        await until(lambda: not peer.readers and not peer.unanswered())
        assert len(peer.connections) == 2, "one publishes, one reads"
        assert peer.count("NACK") == 0
