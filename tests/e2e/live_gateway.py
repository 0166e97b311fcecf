"""The gateway as a process of its own, as an operator runs it, with a configuration file of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.brokers.broker import Broker
from tests.brokers.process import free_port
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import Answer, ask, eventually, get_json

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
_ESTABLISHED = "01"
_DEFECTS = ("Traceback", "never retrieved", "never awaited", "was destroyed", "code=internal")


class LiveGateway:
    """A running `serve`; `log` is what it wrote, for a failing test to show."""

    def __init__(self, config: Path, **environment: str) -> None:
        self.port = free_port()
        #: Of the questions below, where nobody else may ask them.
        self.headers: dict[str, str] = {}
        self.log = config.with_suffix(".log")
        command = [sys.executable, "-m", "app", "serve", "--config", str(config), "--port", str(self.port)]
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(config.parent), **environment}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def await_start(self) -> None:
        """Wait for the line that says where it listens."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().decode()
        assert re.search(rf"https?://127\.0\.0\.1:{self.port}", line), f"{line}{self.log.read_text()}"

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    async def ended(self, timeout: float) -> int:
        """The exit code."""
        return await asyncio.to_thread(self.popen.wait, timeout)

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()

    # What it tells.

    async def link(self, service: str) -> dict[str, Any]:
        view: dict[str, Any] = await get_json(self.port, f"/mq/{service}", self.headers)
        return view

    async def until_link(self, service: str, wanted: Callable[[dict[str, Any]], bool], timeout: float = 20) -> None:
        """Wait until `GET /mq/{service}` fits; a stream with status=true would need a link first."""

        async def fits() -> bool:
            return wanted(await self.link(service))

        await eventually(fits, f"the wanted state of {service}", timeout)

    async def until_up(self, *services: str, timeout: float = 20) -> None:
        for service in services:
            await self.until_link(service, lambda view: view["link"] == "up", timeout)

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 where there is none."""
        answer: Answer = await ask(self.port, "GET", "/metrics", headers=self.headers)
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in answer.body.decode().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                return float(found[2])
        return 0.0

    # What the kernel and the broker tell.

    def broker_ports(self, broker: Broker) -> set[int]:
        """Local ports of this process's established connections to a broker: the identity of its links."""
        return self.ports_at(broker.port)

    def ports_at(self, port: int) -> set[int]:
        """The same for whoever listens on a port."""
        found = {
            inode: local for local, remote, state, inode in _connections() if remote == port and state == _ESTABLISHED
        }
        return {found[inode] for inode in _sockets(self.pid) if inode in found}

    async def broker_pids(self, broker: RabbitMQ) -> list[str]:
        """The Erlang processes of this gateway's connections at RabbitMQ."""
        ports = sorted(self.broker_ports(broker))
        pairs = await broker.eval(
            "[[list_to_binary(pid_to_list(P)),"
            " proplists:get_value(peer_port, rabbit_stomp_reader:info(P, [peer_port]))] || P <- rabbit_stomp:list()]"
        )
        return [pid for pid, port in pairs if port in ports]

    def threads(self) -> int:
        """Of the process."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def client_ports(self) -> set[int]:
        """Ports of the HTTP clients whose sockets this process still holds."""
        found = {inode: remote for local, remote, _state, inode in _connections() if local == self.port}
        return {found[inode] for inode in _sockets(self.pid) if inode in found}

    def problems(self) -> list[str]:
        """What the log says of defects: tracebacks, tasks nobody waited for."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if any(map(line.count, _DEFECTS))]


def _sockets(pid: int) -> Iterator[str]:
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")


def _connections() -> Iterator[tuple[int, int, str, str]]:
    """(local port, remote port, state, inode) of every TCP socket of the machine."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(fields[index].rpartition(":")[2], 16) for index in (1, 2))
            yield local, remote, fields[3], fields[9]


def stomp(broker: Broker, **settings: Any) -> dict[str, Any]:
    """A service of the configuration: this broker, every destination allowed, quick to reconnect."""
    return {
        "mq_type": "Stomp",
        "host": broker.host,
        "port": broker.port,
        "user": broker.user,
        "password": broker.password,
        "reconnect": {"initial": 0.1, "increase": 0.2, "max": 0.5},
        "allow_undeclared": True,
        **settings,
    }


MEMORY: dict[str, Any] = {"mq_type": "Memory", "allow_undeclared": True}


def write_config(folder: Path, services: dict[str, Any], **sections: Any) -> Path:
    """JSON is YAML: a configuration file with these services and sections."""
    path = folder / "gateway.yaml"
    path.write_text(json.dumps({"services": services, **sections}))
    return path


@contextlib.asynccontextmanager
async def running(config: Path, *, clean: bool = True, **environment: str) -> AsyncIterator[LiveGateway]:
    """A gateway for one test, killed after it. With `clean` its log must show no defect at the end."""
    gateway = LiveGateway(config, **environment)
    try:
        async with asyncio.timeout(START_SECONDS):
            await asyncio.to_thread(gateway.await_start)
        yield gateway
        problems = gateway.problems() if clean else []
        assert problems == [], problems
    finally:
        gateway.kill()
