"""A server in a thread, a tiny application in it, and clients that say exactly the bytes they mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import uvloop

from app.config.settings import Settings
from app.http1.rules import Rules
from app.http1.sockets import listen
from app.server import GatewayServer
from tests.brokers.tls import Authority

#: Seconds any step of a test may take before the test fails.
PATIENCE = 10.0


@dataclass
class Seen:
    """What the application saw of one request."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    scope: dict[str, Any]
    body: bytes = b""
    complete: bool = False
    gone: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class TinyApp:
    """Answers by path. `seen` has every request in the order in which the application was called."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.arrival = threading.Condition()
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        seen = Seen(scope["method"], scope["path"], scope["headers"], scope)
        with self.arrival:
            self.seen.append(seen)
            self.arrival.notify_all()
        try:
            name = scope["path"].strip("/").partition("/")[0].replace("-", "_")
            await getattr(self, f"on_{name}", self.on_echo)(seen, receive, send)
        finally:
            seen.done.set()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def read(self, seen: Seen, receive: Any) -> bool:
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                seen.gone = True
                return False
            seen.body += event["body"]
            if not event["more_body"]:
                seen.complete = True
                return True

    async def on_echo(self, seen: Seen, receive: Any, send: Any) -> None:
        """The body comes back, after it came whole."""
        if await self.read(seen, receive):
            await self.answer(send, seen.body)

    async def answer(self, send: Any, body: bytes, status: int = 200) -> None:
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    async def on_early(self, seen: Seen, receive: Any, send: Any) -> None:
        """An answer without a look at the body."""
        await self.answer(send, b"no", 413)

    async def on_held(self, seen: Seen, receive: Any, send: Any) -> None:
        """The body is read and then released by the test."""
        if await self.read(seen, receive):
            await self.release.wait()
            await self.answer(send, seen.body)

    async def on_unread(self, seen: Seen, receive: Any, send: Any) -> None:
        """Answers when released, and never reads."""
        await self.release.wait()
        await self.answer(send, b"done")

    async def on_stream(self, seen: Seen, receive: Any, send: Any) -> None:
        """Two chunks now, one when released; `gone` when the client goes."""
        gone = asyncio.Event()
        scope = seen.scope["extensions"]["mq_gateway"]
        forget = scope["on_disconnect"](gone.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two", "more_body": True})
        waits = {asyncio.ensure_future(gone.wait()), asyncio.ensure_future(self.release.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        seen.gone = gone.is_set()
        forget()
        await send({"type": "http.response.body", "body": b"three"})

    async def on_flood(self, seen: Seen, receive: Any, send: Any) -> None:
        """Sends until the client is gone."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not seen.scope["extensions"]["mq_gateway"]["is_closing"]():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        seen.gone = True

    async def on_late(self, seen: Seen, receive: Any, send: Any) -> None:
        """Asks to be told of a disconnect after its answer, when there is nothing to tell any more."""
        called = asyncio.Event()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"called"})
        seen.scope["extensions"]["mq_gateway"]["on_disconnect"](called.set)
        await called.wait()

    async def on_aborts(self, seen: Seen, receive: Any, send: Any) -> None:
        """Writes more than the client takes, and ends the connection; `body` is what was unsent."""
        extension = seen.scope["extensions"]["mq_gateway"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (4 << 20), "more_body": True})
        seen.body = b"%d" % extension["write_buffer_size"]()
        extension["abort"]()
        await send({"type": "http.response.body", "body": b"too late"})

    async def on_big(self, seen: Seen, receive: Any, send: Any) -> None:
        """Eight MiB in one piece."""
        await self.answer(send, b"x" * (8 << 20))

    async def on_crash(self, seen: Seen, receive: Any, send: Any) -> None:
        raise LookupError("as the test wants it")

    async def on_crash_late(self, seen: Seen, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("as the test wants it")

    async def on_silent(self, seen: Seen, receive: Any, send: Any) -> None:
        """Returns without an answer."""


@dataclass
class Served:
    """A running server."""

    app: TinyApp
    server: GatewayServer
    port: int
    loop: asyncio.AbstractEventLoop
    tls: ssl.SSLContext | None = None

    def connect(self, *, receive_buffer: int = 0) -> Client:
        """With `receive_buffer` a client whose kernel takes little."""
        sock = self.tcp(receive_buffer=receive_buffer)
        if self.tls is None:
            return Client(sock)
        return Client(self.tls.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False))

    def tcp(self, *, receive_buffer: int = 0) -> socket.socket:
        """A connection on which nothing has been said."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def ask(self, *parts: bytes) -> Response:
        """One connection, these bytes, the first response."""
        with self.connect() as client:
            client.send(*parts)
            return client.response()

    def arrived(self, index: int = 0) -> Seen:
        """The request with this index, once the application has been called with it."""
        with self.app.arrival:
            assert self.app.arrival.wait_for(lambda: len(self.app.seen) > index, PATIENCE)
        return self.app.seen[index]

    def emptied(self) -> None:
        """Returns when no connection is left."""

        async def wait() -> None:
            state = self.server.server_state
            while state.connections:
                state.emptied.clear()
                await state.emptied.wait()

        asyncio.run_coroutine_threadsafe(wait(), self.loop).result(PATIENCE)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.app.release.set)


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        assert found["request_id"] == self.headers["x-request-id"]
        return found


class Client:
    """A blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        """Every part in a segment of its own."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            self.sock.sendall(part)

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.file.readline().split()[1])
        headers = {}
        for line in iter(self.file.readline, b"\r\n"):
            assert line, "the connection ended within a head"
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def response(self) -> Response:
        """One whole response, framed by its length or by chunks."""
        status, headers = self.head()
        if "content-length" in headers:
            return Response(status, headers, self.file.read(int(headers["content-length"])))
        body = b""
        while chunk := self.chunk():
            body += chunk
        return Response(status, headers, body)

    def chunk(self) -> bytes:
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        assert self.file.readline() == b"\r\n"
        return data

    def rest(self) -> bytes:
        """Everything until the server ends the connection; an orderly end or a reset."""
        data = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            while piece := self.file.read1():
                data += piece
        return data


@contextlib.contextmanager
def serving(
    app: TinyApp | None = None,
    *,
    connections: int = 1000,
    limits: dict[str, Any] | None = None,
    authority: Authority | None = None,
    **server: Any,
) -> Generator[Served]:
    """A server with these settings, on uvloop in a thread of its own; ends without a drain worth waiting for.

    With an `authority` it speaks HTTPS.
    """
    app = app or TinyApp()
    if authority is not None:
        issued = authority.server()
        server["tls"] = {"cert_file": issued.cert_file, "key_file": issued.key_file, **server.get("tls", {})}
    settings = Settings.model_validate({"server": {"port": 0, "drain_seconds": 5, **server}, "limits": limits or {}})
    sockets = listen("127.0.0.1", 0)
    rules = Rules.of(settings.server, settings.limits, connections=connections)
    up = threading.Event()
    made: list[tuple[GatewayServer, asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        gateway = GatewayServer(app, settings, rules, lambda _: up.set())
        made.append((gateway, asyncio.get_running_loop()))
        await gateway.serve(sockets)

    def work() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    port = sockets[0].getsockname()[1]
    thread = threading.Thread(target=work)
    thread.start()
    assert up.wait(PATIENCE)
    gateway, loop = made[0]
    try:
        yield Served(app, gateway, port, loop, authority.client_context() if authority else None)
    finally:
        gateway.handle_exit(15, None)
        gateway.handle_exit(15, None)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def segments(raw: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(raw), size):
        yield raw[start : start + size]
