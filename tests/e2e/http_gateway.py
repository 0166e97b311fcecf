"""The whole gateway over real sockets, in the test's own loop: our server, the application, queues in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from app.config.settings import Settings
from app.gateway.gateway import Gateway
from app.http1.rules import Rules
from app.http1.sockets import listen
from app.main import create_app
from app.server import GatewayServer
from tests.brokers.tls import Authority

#: Seconds any step of a test may take before the test fails.
PATIENCE = 10.0

DEMO: dict[str, Any] = {
    "mq_type": "Memory",
    "queues": {"jobs": {}, "a/b": {}, "lax": {"check_json": False, "default_content_type": "text/plain"}},
    "topics": {"events": {}, "small": {"ring_messages": 4}},
}


@dataclass
class Served:
    """A running gateway and a client for it. `port` is for tests that say their bytes themselves."""

    app: FastAPI
    server: GatewayServer
    port: int
    client: httpx.AsyncClient

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    async def raw(self, *parts: bytes) -> bytes:
        """One connection, these bytes, everything that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def stream(self, path: str, **options: Any) -> contextlib.AbstractAsyncContextManager[Events]:
        return _events(self.client, path, options)

    def metric(self, name: str, **labels: str) -> float:
        """The present value of a metric; 0 where it has none yet."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells of: a metric, a count of tasks."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@dataclass
class Event:
    """One event as a client sees it; `retry` and comments are events without data here."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: int | None = None
    comment: str | None = None

    @property
    def json(self) -> Any:
        assert self.data is not None
        return json.loads(self.data)


class Events:
    """An open stream, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """The next block of lines; StopAsyncIteration when the stream has ended."""
        event = Event()
        seen = False
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                if line:
                    seen = True
                    _take(event, line)
                elif seen:
                    return event
        raise StopAsyncIteration

    async def message(self) -> Event:
        """The next block that fires something at a client."""
        while (event := await self.next()).data is None:
            pass
        return event

    async def rest(self) -> list[Event]:
        """Everything until the end of the stream."""
        events = []
        with contextlib.suppress(StopAsyncIteration):
            while True:
                events.append(await self.next())
        return events


def _take(event: Event, line: str) -> None:
    name, _, value = line.partition(":")
    value = value.removeprefix(" ")
    match name:
        case "":
            event.comment = value
        case "data":
            event.data = value if event.data is None else f"{event.data}\n{value}"
        case "retry":
            event.retry = int(value)
        case "id":
            event.id = value
        case _:
            assert name == "event", f"an unknown field: {line!r}"
            event.event = value


@contextlib.asynccontextmanager
async def _events(client: httpx.AsyncClient, path: str, options: dict[str, Any]) -> AsyncGenerator[Events]:
    async with client.stream("GET", path, **options) as response:
        yield Events(response)


@contextlib.asynccontextmanager
async def serving(
    services: dict[str, Any] | None = None,
    *,
    limits: dict[str, Any] | None = None,
    auth: dict[str, Any] | None = None,
    authority: Authority | None = None,
    **server: Any,
) -> AsyncGenerator[Served]:
    """A gateway with these settings, with an `authority` over HTTPS; ends without a drain worth waiting for."""
    if authority is not None:
        issued = authority.server()
        server["tls"] = {"cert_file": issued.cert_file, "key_file": issued.key_file}
    values = {
        "server": {"port": 0, "drain_seconds": 5, **server},
        "services": {"demo": DEMO} if services is None else services,
        "limits": limits or {},
        "auth": auth or {},
    }
    settings = Settings.model_validate(values)
    app = create_app(settings)
    up = asyncio.Event()
    rules = Rules.of(settings.server, settings.limits, connections=1000)
    gateway_server = GatewayServer(app, settings, rules, lambda _url: up.set())
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    task = asyncio.create_task(gateway_server.serve(sockets))
    try:
        async with asyncio.timeout(PATIENCE):
            await up.wait()
        url = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        verify = authority.client_context() if authority else True
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=verify) as client:
            yield Served(app, gateway_server, port, client)
    finally:
        gateway_server.handle_exit(15, None)
        gateway_server.handle_exit(15, None)
        async with asyncio.timeout(PATIENCE):
            await task
