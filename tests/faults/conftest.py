"""A StompMQConnector against a scripted peer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from app.config.settings import QueueSettings, ServiceSettings, TopicSettings
from app.connectors.base import ConnectorContext, Destination, Subscription
from app.connectors.stomp import addresses, alias
from app.connectors.stomp.connector import StompMQConnector
from app.domain.link import LinkFault, LinkState
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri
from app.gateway.stream import Counts
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from tests.contract.conftest import WAIT, Recorder
from tests.faults.alias_site import Names, Open, opened

FAST = {"initial": 0.05, "increase": 0, "max": 0.05, "jitter": 0}


def queue(name: str = "jobs", **settings: Any) -> Destination:
    return Destination(MqUri("svc", DestinationType.QUEUES, name), QueueSettings(**settings))


def topic(name: str = "news", **settings: Any) -> Destination:
    return Destination(MqUri("svc", DestinationType.TOPICS, name), TopicSettings(**settings))


def publication(body: bytes = b"hello", **fields: Any) -> Publication:
    return Publication(body=body, message_id="id-1", **fields)


@dataclass
class Subject:
    """A connector under test, its states and events, and awaitable wishes about them."""

    settings: ServiceSettings
    window: int = 1000
    states: list[LinkState] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        context = ConnectorContext(in_flight=self.window, on_state=self.note_state, on_event=self.note_event)
        self.connector = StompMQConnector("svc", self.settings, context)

    def note_state(self, _old: LinkState, new: LinkState) -> None:
        self.states.append(new)
        self.news.set()

    def note_event(self, event: str) -> None:
        self.events.append(event)
        self.news.set()

    async def until(self, wanted: Callable[[], bool], timeout: float = WAIT) -> None:
        async with asyncio.timeout(timeout):
            while not wanted():
                self.news.clear()
                await self.news.wait()

    async def state(self, wanted: LinkState, timeout: float = WAIT) -> None:
        await self.until(lambda: self.connector.status.state is wanted, timeout)

    @property
    def fault(self) -> LinkFault | None:
        error = self.connector.status.last_error
        return None if error is None else error.code

    async def full(self) -> None:
        """Wait until the socket takes no more."""
        session = self.connector._publisher._link.current
        assert session is not None
        for _ in range(100):  # turns of the loop: what is sent goes out at the end of one
            if not session.transport.is_writable:
                return
            await asyncio.sleep(0)
        raise AssertionError("the socket takes more")

    async def put(self, body: bytes = b"hello", *, to: Destination | None = None, timeout: float = WAIT) -> None:
        await self.connector.publish(to or queue(), publication(body), timeout=timeout)

    def putting(
        self, body: bytes = b"hello", *, to: Destination | None = None, timeout: float = WAIT
    ) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.put(body, to=to, timeout=timeout))

    async def consume(
        self, destination: Destination, *, prefetch: int = 10, timeout: float = WAIT
    ) -> tuple[Recorder, Subscription]:
        recorder = Recorder()
        subscription = await self.connector.subscribe(
            destination, recorder, acknowledge=destination.uri.is_queue, prefetch=prefetch, timeout=timeout
        )
        return recorder, subscription


Connect = Callable[..., AbstractAsyncContextManager[Subject]]


@pytest.fixture
def subject() -> Connect:
    """Start a connector at an address; settings as in the configuration. Closed at the end of the block."""

    @contextlib.asynccontextmanager
    async def connect(address: str, *, window: int = 1000, up: bool = True, **settings: Any) -> AsyncIterator[Subject]:
        known = {"hosts": [address], "user": "guest", "password": "secret", "heartbeat_ms": [0, 0], "reconnect": FAST}
        subject = Subject(ServiceSettings.model_validate({**known, **settings}), window)
        await subject.connector.start()
        if up:
            await subject.state(LinkState.UP)
        yield subject
        await subject.connector.close(0.2)

    return connect


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(addresses, "lookup", made.lookup)
    monkeypatch.setattr(alias, "LOOK_UP_EVERY", 0.05)
    monkeypatch.setattr(alias, "LOOK_UP_SOON", 0.05)
    monkeypatch.setattr(alias, "GONE_AFTER", 2)
    return made


@pytest.fixture
def site(subject: Connect, names: Names) -> Open:
    """Brokers behind `alias`, and a connector that consumes from all of them."""
    return partial(opened, subject, names)


@pytest.fixture
async def takings() -> AsyncIterator[Takings]:
    made = Takings("here", Metrics(), lambda _uri: Counts(), lambda _size: None, linger=60)
    yield made
    await made.close(WAIT)
    assert made.buffered() == 0
