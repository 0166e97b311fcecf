"""What is tortured: the gateway as a real process, its configuration, its brokers, and the clock of the run."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.client import BROKEN, Connection
from tests.chaos.target import Target
from tests.chaos.vitals import Vitals, vitals_of
from tests.e2e.http_client import eventually
from tests.gateway_process import GatewayProcess

#: Seconds within which a link must be up again after its broker takes connections.
HEAL_SECONDS = 30.0
#: Milliseconds; the gateway gives a silent broker up after two of them.
HEARTBEAT_MS = 2000
#: A ring that a slow reader falls behind within a minute.
_BULK_RING = 100
#: Longer runs log no requests.
_LOGGED_SECONDS = 900
_MISSING_EXCHANGE = "/exchange/no-such-exchange/x"


@dataclass(frozen=True)
class Ended:
    """One end of the gateway: its exit code, None where it had to be killed, and how long it took in seconds."""

    code: int | None
    seconds: float


@dataclass
class Site:
    """The gateway and what it runs on. `ready` while clients may connect; `generation` counts its processes."""

    folder: Path
    broker: Target
    calm: Target
    seconds: float
    started: float = field(default_factory=time.monotonic)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    generation: int = 0
    ends: list[Ended] = field(default_factory=list)
    #: The gateway alone, without clients, after its links came up.
    alone: Vitals | None = None
    _changed: float = 0.0

    def __post_init__(self) -> None:
        self.gateway = GatewayProcess(self.folder / "gateway.log")

    @property
    def port(self) -> int:
        return self.gateway.port

    def say(self, text: str) -> None:
        """A line with the time of the run."""
        print(f"{time.monotonic() - self.started:7.1f}  {text}", flush=True)

    def undisturbed_since(self, begun: float) -> bool:
        """Whether the gateway was there all the time since then: nobody waits for one that is restarted."""
        return self.ready.is_set() and begun > self._changed

    async def start_gateway(self) -> None:
        """Start it, wait for its links, measure it while nobody is connected, and let clients in."""
        config = self.folder / "gateway.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({"services": services(self.broker, self.calm), "server": self._server()}))
        await self.gateway.start("--config", str(config))
        self.generation += 1
        for service in ("mq", "calm", "mem"):
            await self.until_up(service)
        self.alone = vitals_of(self.gateway.pid)
        self._changed = time.monotonic()
        self.ready.set()

    def _server(self) -> dict[str, Any]:
        # A line for every request is 70 kB a second.
        return {"log_level": "warning"} if self.seconds > _LOGGED_SECONDS else {}

    async def stop_gateway(self) -> Ended:
        """SIGTERM and the end it leads to."""
        self.ready.clear()
        begun = time.monotonic()
        try:
            code: int | None = await self.gateway.terminate(timeout=45)
        except TimeoutError:
            self.gateway.discard()
            code = None
        self.ends.append(Ended(code, time.monotonic() - begun))
        return self.ends[-1]

    async def until_up(self, service: str, timeout: float = HEAL_SECONDS) -> float:
        """Wait for a link; the seconds it took. Raises TimeoutError."""
        begun = time.monotonic()

        async def is_up() -> bool:
            return (await self.look(service)).get("link") == "up"

        await eventually(is_up, f"the link of {service} is up", timeout)
        return time.monotonic() - begun

    async def look(self, service: str) -> dict[str, Any]:
        """What the gateway says of a service; empty where it does not answer."""
        try:
            async with await Connection.open(self.port) as connection:
                found: dict[str, Any] = (await connection.ask("GET", f"/mq/{service}")).json
        except BROKEN:
            return {}
        return found

    async def metrics(self) -> str:
        """The page; empty where there is none."""
        try:
            async with await Connection.open(self.port) as connection:
                return (await connection.ask("GET", "/metrics")).body.decode()
        except BROKEN:
            return ""


def services(broker: Target, calm: Target) -> dict[str, Any]:
    """The services: `mq` on the broker that suffers, `calm` and `mem` on what nobody touches."""
    return {
        "mq": {
            **_stomp(broker),
            "queues": {"work": {}, "kept": {}, "torn": {}, "poison": {"destination": _MISSING_EXCHANGE}},
            "topics": {"news": {}, "bulk": {"ring_messages": _BULK_RING}, "poison": {"destination": _MISSING_EXCHANGE}},
        },
        "calm": {**_stomp(calm), "topics": {"probe": {}}},
        "mem": {"mq_type": "Memory", "topics": {"probe": {}}},
    }


def _stomp(broker: Target) -> dict[str, Any]:
    return {
        "mq_type": "Stomp",
        "host": broker.host,
        "port": broker.port,
        "user": broker.user,
        "password": broker.password,
        "connect_timeout": 3,
        "heartbeat_ms": [HEARTBEAT_MS, HEARTBEAT_MS],
        "reconnect": {"initial": 0.2, "increase": 0.5, "max": 2},
    }
