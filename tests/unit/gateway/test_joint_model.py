"""Streams of several Topics against all that was published, in any order of what can happen: from whatever id a client
comes back, with whatever Topics, it sees every message once and in order, or is told of the gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.domain.uri import MqUri
from app.gateway.joint import JointReader
from app.gateway.joint_opening import Wanted, open_joint
from app.gateway.stream import Counts, Reader, Slow, StreamRequest
from app.gateway.topic import Topic
from app.wire.vector import UNTOLD, positions
from tests.unit.gateway.fakes import FakeConnector, topic, turns
from tests.unit.wire.event_source import Event, EventSource

NAMES = "abc"
CLIENTS = st.integers(0, 2)
TOPICS = st.sampled_from(NAMES)
SOME_TOPICS = st.lists(TOPICS, min_size=1, unique=True)


class Source:
    """One Topic, and all there ever was on it: by the life of its ring, entry n at n - 1; None is a lost link."""

    def __init__(self, name: str, events: int, slow: Slow) -> None:
        self.destination = topic(name, ring_messages=events, slow=slow, linger=3600)
        assert isinstance(self.destination.settings, TopicSettings)
        self.connector = FakeConnector()
        self.topic = Topic(
            self.destination,
            self.destination.settings,
            self.connector,
            counts=Counts,
            on_gap=lambda _reason: None,
            grew=lambda _size: None,
        )
        self.lives: dict[str, list[bytes | None]] = {}
        self.published = 0

    @property
    def life(self) -> list[bytes | None]:
        return self.lives.setdefault(self.topic._ring.epoch, [])

    def publish(self, count: int) -> None:
        if not self.connector.subscriptions:
            return
        for _ in range(count):
            self.published += 1
            body = b"%s %d" % (self.destination.uri.name.encode(), self.published)
            self.connector.latest.deliver(body)
            self.life.append(body)

    def lose_the_link(self) -> None:
        if self.topic._upstream is not None:
            self.connector.latest.listener.on_lost()
            self.connector.latest.listener.on_restored()
            self.life.append(None)

    def cancel(self) -> None:
        if self.topic._upstream is not None:
            self.connector.latest.listener.on_cancelled("away")


@dataclass
class Client:
    """What one client knows: its last id, and for each Topic the position that is in it."""

    last_event_id: str = ""
    reader: JointReader | None = None
    uris: list[MqUri] = field(default_factory=list)
    at: dict[MqUri, str] = field(default_factory=dict)


class JointMachine(RuleBasedStateMachine):
    """A few Topics, and clients that come, go and stall."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._clients = [Client() for _ in range(3)]

    @initialize(events=st.integers(1, 6), slow=st.sampled_from(["gap", "latest", "disconnect"]))
    def make(self, events: int, slow: Slow) -> None:
        self._sources = {name: Source(name, events, slow) for name in NAMES}
        self._by_uri = {source.destination.uri: source for source in self._sources.values()}

    def _do(self, what: Callable[[], object]) -> None:
        async def done() -> None:
            what()
            await turns()

        self._runner.run(done())

    # What brokers do.

    @rule(name=TOPICS, count=st.integers(1, 8))
    def publish(self, name: str, count: int) -> None:
        self._do(lambda: self._sources[name].publish(count))

    @rule(name=TOPICS)
    def lose_the_link(self, name: str) -> None:
        self._do(self._sources[name].lose_the_link)

    @rule(name=TOPICS)
    def cancel(self, name: str) -> None:
        self._do(self._sources[name].cancel)

    @rule(name=TOPICS, wanted=st.integers(0, 3000))
    def give_way(self, name: str, wanted: int) -> None:
        self._do(lambda: self._sources[name].topic.give_way(wanted))

    # What clients do.

    @rule(
        number=CLIENTS, names=SOME_TOPICS, earliest=st.booleans(), foreign=st.sampled_from([None, "v.", "abcdefgh.1"])
    )
    def come(self, number: int, names: list[str], earliest: bool, foreign: str | None) -> None:
        client = self._clients[number]
        self._leave(client)
        if foreign is not None:
            client.last_event_id, client.at = foreign, {}
        client.uris = [self._sources[name].destination.uri for name in names]
        known = positions(client.last_event_id, client.uris) if client.last_event_id else [""] * len(names)
        client.at = dict(zip(client.uris, known, strict=True))
        request = StreamRequest(last_event_id=client.last_event_id or None, start="earliest" if earliest else "now")
        wanted = [Wanted(self._by_uri[uri].destination, request, at) for at, uri in enumerate(client.uris)]
        client.reader = self._runner.run(open_joint(self._open, wanted, timeout=5))
        for source in self._by_uri.values():
            _ = source.life
        self._read(client, client.reader.opening)

    async def _open(self, destination: Destination, request: StreamRequest, *, timeout: float) -> Reader:
        return await self._by_uri[destination.uri].topic.open(request, timeout)

    @rule(number=CLIENTS, max_bytes=st.sampled_from([1, 100, 300, 1 << 16]), cut=st.integers(0, 5) | st.none())
    def take(self, number: int, max_bytes: int, cut: int | None) -> None:
        """With a `cut` the connection is lost after so many events of the batch."""
        client = self._clients[number]
        if client.reader is None:
            return
        batch = client.reader.take(max_bytes)
        blocks = batch.data.split(b"\n\n")[:-1]
        self._read(client, b"".join(block + b"\n\n" for block in blocks[:cut]))
        if cut is not None or batch.end is not None:
            self._leave(client)
        else:
            client.reader.handed_over(batch)

    def _leave(self, client: Client) -> None:
        if client.reader is not None:
            self._runner.run(client.reader.close())
            client.reader = None

    # What has to be.

    def _read(self, client: Client, data: bytes) -> None:
        for block in data.split(b"\n\n")[:-1]:
            seen = EventSource.read(block + b"\n\n")
            position = dict(zip(client.uris, positions(seen.last_event_id, client.uris), strict=True))
            moved = self._event(client, seen.events[0], position) if seen.events else None
            # Only its own Topic is moved by an event; an id alone says where those begin that had no position.
            for uri in client.uris:
                assert uri == moved or client.at[uri] in {"", position[uri]}
            client.at = position
            client.last_event_id = seen.last_event_id

    def _event(self, client: Client, event: Event, position: dict[MqUri, str]) -> MqUri:
        if event.type == "gap":
            value = json.loads(event.data)
            uri = MqUri.parse(value["mq_uri"])
            self._gap(client, uri, position[uri], value["reason"], value["missed"])
        else:
            uri = MqUri.parse(f"svc::Topics::{event.data.split()[0]}")
            self._message(client, uri, position[uri], event.data.encode())
        return uri

    def _message(self, client: Client, uri: MqUri, position: str, body: bytes) -> None:
        epoch, number = _parts(position)
        assert self._by_uri[uri].lives[epoch][number - 1] == body
        before = client.at[uri]
        assert before != UNTOLD, "nobody was told of the gap"
        if before:
            assert _parts(before) == (epoch, number - 1), "a hole or a repeat"

    def _gap(self, client: Client, uri: MqUri, position: str, reason: str, missed: int | None) -> None:
        epoch, number = _parts(position)
        before = client.at[uri]
        life = self._by_uri[uri].lives[epoch]
        if reason == "restart":
            assert before == UNTOLD or _parts(before)[0] != epoch
            return
        assert before not in {"", UNTOLD}
        was, at = _parts(before)
        assert was == epoch
        if reason == "link_lost":
            assert (number, life[number - 1]) == (at + 1, None)
            return
        between = life[at:number]
        assert between
        assert missed == (None if None in between else len(between))

    def teardown(self) -> None:
        """In the end everybody comes to where the Topics are."""
        try:
            if hasattr(self, "_sources"):
                for client in self._clients:
                    self._flow(client)
                for source in self._sources.values():
                    self._do(source.topic.stop)
        finally:
            self._runner.close()

    def _flow(self, client: Client) -> None:
        for number in range(200):
            if client.reader is None or not client.reader.is_ready:
                break
            self.take(self._clients.index(client), 1 << (number % 16), None)
        if client.reader is not None:
            for uri, position in client.at.items():
                with suppress(ValueError):
                    assert _parts(position)[1] == self._by_uri[uri].topic._ring.last
            self._leave(client)
        assert all(not source.topic.readers for source in self._sources.values()) or client is not self._clients[-1]


def _parts(position: str) -> tuple[str, int]:
    epoch, _, number = position.rpartition(".")
    return epoch, int(number)


TestJoint = JointMachine.TestCase
# One example is a whole life of some Topics, and quick.
TestJoint.settings = settings(max_examples=60, deadline=None, stateful_step_count=30)
