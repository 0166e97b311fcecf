"""One address of the gateway: its sockets, the connections that came by it, and the rules for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from app.config.server import ServerSettings
from app.http1.certificate import Certificate
from app.http1.protocol import GatewayProtocol
from app.http1.rules import MANAGEMENT_CONNECTIONS, GatewayState, Rules
from app.http1.sockets import listen, reset, url_of
from app.http1.tls import TlsLayer

App = Callable[..., Awaitable[None]]


class CannotListen(Exception):
    """An address is taken, or is none of this machine."""


def bind(server: ServerSettings) -> tuple[list[socket.socket], list[socket.socket]]:
    """The sockets of the gateway and of its management port; raises CannotListen."""
    bound: list[list[socket.socket]] = []
    for host, port in ((server.host, server.port), server.management.address or ("", None)):
        try:
            bound.append([] if port is None else listen(host, port))
        except OSError as error:
            raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return bound[0], bound[1]


class Listener:
    """Serves `app`. With a `certificate` it speaks HTTPS; another one counts for the connections that come then."""

    def __init__(
        self, app: App, state: GatewayState, *, headers: Iterable[tuple[str, str]] = (), root_path: str = ""
    ) -> None:
        self.config = uvicorn.Config(
            app,
            interface="asgi3",
            http=GatewayProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("server", "mq-gateway"), *headers],
            proxy_headers=False,  # ours are in app.http1.forwarded
            root_path=root_path,
        )
        self.config.load()
        self.state = state
        self.certificate: Certificate | None = None
        self._app_state: dict[str, Any] = {}
        self._sockets: Sequence[socket.socket] = ()
        self.servers: list[asyncio.Server] = []

    @property
    def url(self) -> str | None:
        """Where clients find it; None where it has no socket."""
        return url_of(self._sockets[0], "https" if self.certificate else "http") if self._sockets else None

    def tell_time(self, date: bytes) -> None:
        """The Date header of the next second (RFC 9110 section 6.6.1)."""
        self.state.default_headers = [(b"date", date), *self.config.encoded_headers]

    async def open(self, sockets: Sequence[socket.socket], app_state: dict[str, Any]) -> None:
        """Accepts from now on; raises OSError where another process was quicker."""
        loop = asyncio.get_running_loop()
        self._sockets, self._app_state = sockets, app_state
        for each in sockets:
            self.servers.append(await loop.create_server(self._accept, sock=each, backlog=self.config.backlog))

    def _accept(self) -> asyncio.Protocol:
        if self.certificate is None:
            return self._connection()
        return TlsLayer(self.certificate.context, self.state, self._connection)

    def _connection(self) -> GatewayProtocol:
        return GatewayProtocol(self.config, self.state, self._app_state)

    def stop(self) -> None:
        """Accepts no more; every connection ends with what it is at, and who has asked nothing is sent away."""
        for server in self.servers:
            server.close()
        for each in self._sockets:
            each.close()
        for one in list(self.state.handshakes):
            reset(one)
        for connection in list(self.state.connections):
            connection.shutdown()

    def reset(self) -> None:
        """Ends every connection at once."""
        for each in list(self.state.connections):
            reset(each.transport)

    async def emptied(self) -> None:
        """Returns when no connection is left."""
        while self.state.connections:
            self.state.emptied.clear()
            await self.state.emptied.wait()

    async def end_requests(self, patience: float, cancelled: float) -> None:
        """Gives requests `patience` seconds to notice the end of their connections, and as cancelled ones some more."""
        tasks = self.state.tasks
        if tasks and patience:
            await asyncio.wait(tasks, timeout=patience)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=cancelled)


def listeners(
    app: App, management: App, server: ServerSettings, rules: Rules, refused: Callable[[str], None]
) -> tuple[Listener, Listener]:
    """For clients, and for those who look after the process. `refused` counts the reasons of refusals of both."""
    hsts = [("strict-transport-security", f"max-age={server.tls.hsts_seconds}")] if server.tls.hsts_seconds else []
    main = Listener(app, GatewayState(rules, refused), headers=hsts, root_path=server.root_path)
    few = replace(rules, connections=min(MANAGEMENT_CONNECTIONS, rules.connections))
    return main, Listener(management, GatewayState(few, refused))
