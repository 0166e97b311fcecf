"""One site per kind of connector; the same tests run on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.config.settings import QueueSettings, ServiceSettings, TopicSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, MQConnector
from app.connectors.catalog import connector_class
from app.domain.link import LinkState
from app.domain.uri import DestinationType, MqUri
from tests.brokers.fixtures import Unique

WAIT = 10.0


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


def service_settings(kind: str, request: pytest.FixtureRequest, **more: Any) -> ServiceSettings:
    if kind == "memory":
        return ServiceSettings.model_validate({"mq_type": "Memory", **more})
    kind, _, split = kind.partition(" ")
    if split:
        more["connections"] = split
    broker = request.getfixturevalue(kind)
    login = {"host": broker.host, "port": broker.port, "user": broker.user, "password": broker.password}
    more.setdefault("allow_undeclared", True)  # the tests make up their destinations
    return ServiceSettings.model_validate({**login, **more})


@pytest.fixture(
    params=[
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
        pytest.param("rabbitmq split", marks=pytest.mark.rabbitmq),
        pytest.param("activemq split", marks=pytest.mark.activemq),
    ]
)
async def site(request: pytest.FixtureRequest, unique: Unique) -> AsyncIterator[Site]:
    site = await open_site(request.param, service_settings(request.param, request), unique)
    yield site
    await site.connector.close(WAIT)
    assert site.connector.status.state is LinkState.CLOSED


@pytest.fixture
async def activemq_site(request: pytest.FixtureRequest, unique: Unique) -> AsyncIterator[Site]:
    """For what only ActiveMQ can."""
    site = await open_site("activemq", service_settings("activemq", request), unique)
    yield site
    await site.connector.close(WAIT)
