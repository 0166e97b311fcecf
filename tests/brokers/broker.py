"""What the private brokers have in common. Everything that takes time is awaited and runs beside the event loop."""

from __future__ import annotations

import asyncio
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from tests.brokers.process import LOOPBACK, KeptProcess, established, free_port, stopped, wait_until

START_SECONDS = 60
STOP_SECONDS = 20


class Broker(ABC):
    """A real broker in a folder of its own, on loopback ports of its own.

    The broker that all tests share can be asked, not stopped: `stop`, `kill`, `pause` and so on raise RuntimeError.
    """

    #: As in the markers and fixtures.
    kind: ClassVar[str]
    #: The package of Debian and Ubuntu it comes from.
    package: ClassVar[str]
    host = LOOPBACK
    user = "guest"
    password = "guest"
    vhost = "/"

    def __init__(self, run: Path, folder: Path, ports: dict[str, int] | None = None) -> None:
        self.run = run
        self.folder = folder
        self.ports = ports or {name: free_port() for name in self.port_names()}
        self._process: KeptProcess | None = None
        self._attached = False

    @staticmethod
    @abstractmethod
    def installed() -> bool:
        """Whether the broker is on this machine."""

    @staticmethod
    @abstractmethod
    def port_names() -> tuple[str, ...]:
        """The ports it needs; `stomp` among them."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write the configuration; called before every start."""

    @abstractmethod
    def _launch(self) -> KeptProcess:
        """Start the process."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it takes STOMP connections."""

    @property
    def port(self) -> int:
        return self.ports["stomp"]

    @property
    def address(self) -> str:
        """`host:port` of the plain STOMP listener."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        return self._own().pid

    def connections(self) -> int:
        """STOMP connections established at this moment, from the kernel's table."""
        return established(self.port)

    async def until(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Wait until a condition on this broker holds, e.g. `lambda: broker.connections() == 1`."""
        await asyncio.to_thread(wait_until, condition, timeout, f"condition on {self.kind} did not hold")

    async def start(self) -> None:
        """Start and return when STOMP connections are taken; with the data of the previous life."""
        await asyncio.to_thread(self.start_blocking)

    async def stop(self) -> None:
        """Shut down in order."""
        await asyncio.to_thread(self.stop_blocking)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """SIGKILL: connections are reset by the kernel, nothing is flushed."""
        await asyncio.to_thread(self._own().kill)

    async def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is read or answered, from the moment this returns."""
        process = self._own()
        process.signal(signal.SIGSTOP)
        # A thread on another core goes on until it notices.
        await asyncio.to_thread(wait_until, lambda: stopped(process.pid), 10, f"{self.kind} did not stop")

    async def resume(self) -> None:
        self._own().signal(signal.SIGCONT)

    def start_blocking(self) -> None:
        """As `start`, for code outside an event loop."""
        self._refuse_if_shared()
        if self.running:
            raise RuntimeError(f"{self.kind} is already running")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        self._process = self._launch()
        try:
            wait_until(self._ready_or_dead, START_SECONDS, f"{self.kind} did not start")
        except TimeoutError:
            self.stop_blocking()
            raise

    def stop_blocking(self) -> None:
        """As `stop`, for code outside an event loop."""
        self._own().end(STOP_SECONDS)

    async def discard(self) -> None:
        """End everything it runs, at once; after this only its folder is left."""
        if self._process is not None:
            await self.kill()

    def describe(self) -> str:
        """What another process needs to `attach`."""
        return json.dumps({"folder": str(self.folder), "ports": self.ports})

    @classmethod
    def attach(cls, run: Path, description: str) -> Self:
        """The broker that another process of this run started."""
        known = json.loads(description)
        broker = cls(run, Path(known["folder"]), known["ports"])
        broker.share()
        return broker

    def share(self) -> None:
        """From here on nobody may stop it; the end of the run does."""
        self._attached = True

    def _own(self) -> KeptProcess:
        self._refuse_if_shared()
        if self._process is None:
            raise RuntimeError(f"{self.kind} was never started")
        return self._process

    def _refuse_if_shared(self) -> None:
        if self._attached:
            raise RuntimeError(f"this {self.kind} is shared by all tests: take one from make_{self.kind}")

    def _ready_or_dead(self) -> bool:
        process = self._own()
        if not process.running:
            tail = process.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.kind} ended while it started:\n{tail}")
        return self._ready()
