"""A gateway process on each real broker, for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import private
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.run import Run
from tests.e2e.http_client import Http
from tests.e2e.live_gateway import MEMORY, LiveGateway, stomp, write_config


@pytest.fixture(autouse=True)
async def _every_socket_is_closed() -> AsyncIterator[None]:
    yield
    await Http.close_all()


@dataclass(frozen=True)
class Target:
    """A running gateway whose service `mq` is on the real `broker`, and `mem` in its own memory."""

    gateway: LiveGateway
    broker: Broker

    @property
    def port(self) -> int:
        """Of HTTP."""
        return self.gateway.port


@pytest.fixture(scope="session")
def on_rabbitmq(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from _serve(rabbitmq, tmp_path_factory.mktemp("rabbitmq"))


@pytest.fixture(scope="session")
def on_activemq(activemq: ActiveMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from _serve(activemq, tmp_path_factory.mktemp("activemq"))


def _serve(broker: Broker, folder: Path) -> Iterator[Target]:
    short = {"ring_messages": 100}
    services = {"mq": stomp(broker, topics={"small": short}), "mem": MEMORY}
    server = {"write_timeout": 1.5, "allowed_origins": ["http://dash.example"]}
    gateway = LiveGateway(write_config(folder, services, server=server))
    try:
        gateway.await_start()
        yield Target(gateway, broker)
        assert gateway.problems() == []
    finally:
        gateway.kill()


@pytest.fixture(
    params=[
        pytest.param("on_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("on_activemq", marks=pytest.mark.activemq),
    ]
)
def target(request: pytest.FixtureRequest) -> Target:
    """The shared gateway, once on each broker."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Target)
    return found


@pytest.fixture(
    params=[
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """The shared broker, each once."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Broker)
    return found


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(
            RabbitMQ, marks=[pytest.mark.rabbitmq, pytest.mark.xdist_group("stoppable-rabbitmq")], id="rabbitmq"
        ),
        pytest.param(
            ActiveMQ, marks=[pytest.mark.activemq, pytest.mark.xdist_group("stoppable-activemq")], id="activemq"
        ),
    ],
)
def _private(request: pytest.FixtureRequest, run: Run) -> Iterator[Broker]:
    kind: type[Broker] = request.param
    with private(kind, run) as broker:
        yield broker


@pytest.fixture
async def stoppable(_private: Broker) -> AsyncIterator[Broker]:
    """A broker of each kind for tests that SIGSTOP it and let it go on; started once for all of them."""
    yield _private
    await _private.resume()


@pytest.fixture
def other(_private: Broker, request: pytest.FixtureRequest) -> Broker:
    """The shared broker of the other kind than `stoppable`."""
    found = request.getfixturevalue("activemq" if isinstance(_private, RabbitMQ) else "rabbitmq")
    assert isinstance(found, Broker)
    return found
