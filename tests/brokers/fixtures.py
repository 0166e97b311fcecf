"""Fixtures and hooks of the private brokers, as a pytest plugin."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.run import Run
from tests.brokers.tls import Authority
from tests.stomp_client import StompClient
from tests.tools import not_run, summary

_RUN = pytest.StashKey[Run]()
_WORKER_KEY = "mq_gateway_run"
_MARKED = {"rabbitmq": {"rabbitmq", "make_rabbitmq"}, "activemq": {"activemq", "make_activemq"}}

B = TypeVar("B", bound=Broker)
MakeRabbitMQ = Callable[..., Awaitable[RabbitMQ]]
MakeActiveMQ = Callable[..., Awaitable[ActiveMQ]]
Unique = Callable[[str], str]


@contextlib.contextmanager
def private(kind: type[B], run: Run, **options: Any) -> Iterator[B]:
    """A broker that nobody else of the run uses, until the block ends."""
    if not kind.installed():
        not_run(kind.package)
    broker = kind(run.folder, run.new_folder(kind.kind), **options)
    broker.start_blocking()
    try:
        yield broker
    finally:
        broker.stop_blocking()


class ConnectStomp(Protocol):
    """The fixture `stomp_client`: connect a plain client to a broker or a `host:port`."""

    async def __call__(self, broker: Broker | str, **options: Any) -> StompClient: ...


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run, or join the one whose worker this is."""
    worker = getattr(config, "workerinput", None)
    config.stash[_RUN] = Run(Path(worker[_WORKER_KEY])) if worker else Run.begin()
    if not worker:
        # As Ctrl-C: fixtures are torn down and the run's folder is removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist which run it belongs to."""
    node.workerinput[_WORKER_KEY] = str(node.config.stash[_RUN].folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run; called after Ctrl-C too."""
    config.stash[_RUN].end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker by the fixtures it asks for."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        for marker, fixtures in _MARKED.items():
            if names & fixtures:
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for every package whose tests did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    for line in summary(str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)):
        terminalreporter.write_line(line, yellow=True, bold=True)


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run:
    return request.config.stash[_RUN]


@pytest.fixture(scope="session")
def authority(run: Run) -> Authority:
    """The certification authority of the run; the brokers' TLS listeners have their certificates from it."""
    return Authority(run.folder / "tls")


@pytest.fixture(scope="session")
def rabbitmq(run: Run) -> RabbitMQ:
    """The RabbitMQ of the run, shared: not to be stopped, paused or reconfigured."""
    return run.shared(_installed(RabbitMQ))


@pytest.fixture(scope="session")
def activemq(run: Run) -> ActiveMQ:
    """The ActiveMQ of the run, shared: not to be stopped or paused."""
    return run.shared(_installed(ActiveMQ))


@pytest.fixture
async def make_rabbitmq(run: Run) -> AsyncIterator[MakeRabbitMQ]:
    """Start a private RabbitMQ, options as for `RabbitMQ`; `start=False` leaves that to the test."""
    async with _factory(run, _installed(RabbitMQ)) as make:
        yield make


@pytest.fixture
async def make_activemq(run: Run) -> AsyncIterator[MakeActiveMQ]:
    """Start a private ActiveMQ, options as for `ActiveMQ`; `start=False` leaves that to the test."""
    async with _factory(run, _installed(ActiveMQ)) as make:
        yield make


@pytest.fixture
async def stomp_client() -> AsyncIterator[ConnectStomp]:
    """Connect plain STOMP clients; they are closed after the test."""
    async with contextlib.AsyncExitStack() as clients:

        async def connect(broker: Broker | str, **options: Any) -> StompClient:
            address = broker if isinstance(broker, str) else broker.address
            return await clients.enter_async_context(await StompClient.connect(address, **options))

        yield connect


@pytest.fixture
def unique() -> Unique:
    """Make destination names that no other test uses: `unique("jobs")`."""
    token = uuid4().hex[:10]
    numbers = count(1)
    return lambda name: f"{name}-{token}-{next(numbers)}"


def _installed(kind: type[B]) -> type[B]:
    if not kind.installed():
        not_run(kind.package)
    return kind


@contextlib.asynccontextmanager
async def _factory(run: Run, kind: type[B]) -> AsyncIterator[Callable[..., Awaitable[B]]]:
    async with contextlib.AsyncExitStack() as brokers:

        async def make(*, start: bool = True, **options: Any) -> B:
            broker = kind(run.folder, run.new_folder(kind.kind), **options)
            brokers.push_async_callback(broker.discard)
            if start:
                await broker.start()
            return broker

        yield make
