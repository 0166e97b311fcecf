"""The brokers of a run: what is done to them, whatever they run in."""

from __future__ import annotations

from typing import Protocol

from tests.brokers.docker_rabbitmq import DockerRabbitMQ
from tests.brokers.process import KeptProcess
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.run import Run
from tests.chaos.settings import ChaosSettings


class Target(Protocol):
    """A RabbitMQ under control."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def address(self) -> str: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...
    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def discard(self) -> None: ...
    async def stomp_connections(self) -> int: ...
    async def close_connections(self) -> int: ...
    async def memory_alarm(self, on: bool) -> None: ...


class PoliteRabbitMQ(RabbitMQ):
    """Takes what processor time others leave: how long its boot keeps two cores busy says nothing of the gateway."""

    def _keep(self, name: str, command: list[str]) -> KeptProcess:
        return super()._keep(name, ["nice", "-n", "10", *command])


def missing(settings: ChaosSettings) -> str:
    """Why the run cannot be; empty where it can."""
    if not RabbitMQ.installed():
        return f"{RabbitMQ.package} is not installed"
    return DockerRabbitMQ.missing(settings.image) if settings.broker == "docker" else ""


def tortured(settings: ChaosSettings, run: Run) -> Target:
    """The broker that suffers."""
    folder = run.new_folder("mq")
    if settings.broker == "docker":
        return DockerRabbitMQ(run.folder, folder, settings.image)
    return PoliteRabbitMQ(run.folder, folder)


def calm(run: Run) -> Target:
    """The broker nobody touches."""
    return RabbitMQ(run.folder, run.new_folder("calm"))
