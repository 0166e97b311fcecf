"""One site per kind of connector; the same tests run on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.config.settings import QueueSettings, ServiceSettings, TopicSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, MQConnector
from app.connectors.catalog import connector_class
from app.domain.link import LinkState
from app.domain.uri import DestinationType, MqUri
from tests.brokers.fixtures import Unique
from tests.faults.artemis_peer import ArtemisPeer

WAIT = 10.0
#: No real one: a scripted peer that does what is known of it.
ARTEMIS_SITES = ("artemis", "artemis unprefixed", "artemis split", "artemis all")
#: Every other kind of connector, and ways to be connected.
SITES = (
    "memory",
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("activemq", marks=pytest.mark.activemq),
    pytest.param("rabbitmq split", marks=pytest.mark.rabbitmq),
    pytest.param("activemq split", marks=pytest.mark.activemq),
    pytest.param("rabbitmq all", marks=pytest.mark.rabbitmq),
    pytest.param("activemq all", marks=pytest.mark.activemq),
)


@dataclass
class Recorder:
    """A Listener that keeps what it was told, in order."""

    told: asyncio.Queue[Delivery | str] = field(default_factory=asyncio.Queue)

    def on_message(self, delivery: Delivery) -> None:
        self.told.put_nowait(delivery)

    def on_lost(self) -> None:
        self.told.put_nowait("lost")

    def on_restored(self) -> None:
        self.told.put_nowait("restored")

    def on_withdrawn(self, token: str) -> None:
        self.told.put_nowait(f"withdrawn: {token}")

    def on_cancelled(self, detail: str) -> None:
        self.told.put_nowait(f"cancelled: {detail}")

    async def next(self, timeout: float = WAIT) -> Delivery:
        async with asyncio.timeout(timeout):
            told = await self.told.get()
        assert isinstance(told, Delivery), told
        return told

    async def word(self, timeout: float = WAIT) -> str:
        """The next thing told that is no message; messages before it are dropped."""
        async with asyncio.timeout(timeout):
            while not isinstance(told := await self.told.get(), str):
                pass
        return told

    async def nothing(self, seconds: float = 0.3) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.told.get()


@dataclass
class Site:
    """A connector that is up, and destinations nobody else uses."""

    connector: MQConnector
    unique: Unique
    states: list[LinkState]
    events: list[str]

    @property
    def marks_given_back(self) -> bool:
        """Artemis marks `redelivered` what came back with a lost connection, and not after UNSUBSCRIBE."""
        return not self.connector.service.startswith("artemis")

    def queue(self, **settings: Any) -> Destination:
        uri = MqUri(self.connector.service, DestinationType.QUEUES, self.unique("queue"))
        return Destination(uri, QueueSettings(**settings))

    def topic(self, **settings: Any) -> Destination:
        uri = MqUri(self.connector.service, DestinationType.TOPICS, self.unique("topic"))
        return Destination(uri, TopicSettings(**settings))


async def open_site(kind: str, settings: ServiceSettings, unique: Unique) -> Site:
    states: list[LinkState] = []
    events: list[str] = []
    up = asyncio.Event()

    def on_state(_old: LinkState, new: LinkState) -> None:
        states.append(new)
        if new is LinkState.UP:
            up.set()

    context = ConnectorContext(in_flight=1000, on_state=on_state, on_event=events.append)
    connector = connector_class(settings.mq_type)(kind, settings, context)
    await connector.start()
    async with asyncio.timeout(WAIT):
        await up.wait()
    return Site(connector, unique, states, events)


#: How a service is connected to its broker, where not over one connection.
_WAYS = {"split": {"connections": "split"}, "all": {"consume_from": "all"}}


def service_settings(kind: str, request: pytest.FixtureRequest, **more: Any) -> ServiceSettings:
    if kind == "memory":
        return ServiceSettings.model_validate({"mq_type": "Memory", **more})
    kind, _, way = kind.partition(" ")
    more.update(_WAYS.get(way, {}))
    broker = request.getfixturevalue(kind)
    login = {"host": broker.host, "port": broker.port, "user": broker.user, "password": broker.password}
    more.setdefault("allow_undeclared", True)  # the tests make up their destinations
    return ServiceSettings.model_validate({**login, **more})


@pytest.fixture(params=[*SITES, *ARTEMIS_SITES])
async def site(request: pytest.FixtureRequest, unique: Unique) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        settings = await _settings(request.param, request, stack)
        site = await open_site(request.param, settings, unique)
        yield site
        await site.connector.close(WAIT)
        assert site.connector.status.state is LinkState.CLOSED


@pytest.fixture(params=[pytest.param("activemq", marks=pytest.mark.activemq), "artemis"])
async def activemq_site(request: pytest.FixtureRequest, unique: Unique) -> AsyncIterator[Site]:
    """For what only ActiveMQ can, and Artemis."""
    async with AsyncExitStack() as stack:
        site = await open_site(request.param, await _settings(request.param, request, stack), unique)
        yield site
        await site.connector.close(WAIT)


async def _settings(kind: str, request: pytest.FixtureRequest, stack: AsyncExitStack) -> ServiceSettings:
    if not kind.startswith("artemis"):
        return service_settings(kind, request)
    _, _, way = kind.partition(" ")
    peer = await stack.enter_async_context(ArtemisPeer.serve(prefixes=way != "unprefixed"))
    known = {"hosts": [peer.address], "allow_undeclared": True, "heartbeat_ms": [0, 0]}
    return ServiceSettings.model_validate({**known, **_WAYS.get(way, {})})
