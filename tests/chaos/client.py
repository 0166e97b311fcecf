"""HTTP/1.1 for hours: keep-alive requests and event streams; each step has a deadline, nothing is kept when over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import ClassVar, Self

from tests.brokers.process import LOOPBACK
from tests.e2e.http_client import Answer, Event, Parser

#: Seconds for an answer where the request sets no other. Far more than any deadline the gateway promises.
PATIENCE = 15.0
_LIMIT = 1 << 20
#: What a broken connection raises, whatever broke it; IncompleteReadError is an EOFError.
BROKEN = (OSError, EOFError)


def head(method: str, target: str, headers: Mapping[str, str] | None = None, length: int | None = None) -> bytes:
    """The head of a request."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {LOOPBACK}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """A keep-alive connection. `opened` are those of the process that are open."""

    opened: ClassVar[set[Connection]] = set()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened.add(self)

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None) -> Self:
        """Connect; raises OSError. `receive_buffer` bytes bound what is hidden on this side."""
        sock = socket.socket()
        sock.setblocking(False)
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
                reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or _LIMIT)
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request and its answer; raises what BROKEN names, TimeoutError (an OSError too) after PATIENCE."""
        length = None if body is None else len(body)
        return await self.ask_raw(head(method, target, headers, length) + (body or b""))

    async def ask_raw(self, request: bytes) -> Answer:
        async with asyncio.timeout(PATIENCE):
            self.writer.write(request)
            status, headers = await self._head()
            return Answer(status, headers, await self._body(headers))

    async def start_stream(self, target: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Ask for an event stream; its status and headers."""
        async with asyncio.timeout(PATIENCE):
            self.writer.write(head("GET", target, headers))
            return await self._head()

    async def _head(self) -> tuple[int, dict[str, str]]:
        data = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = data.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return int(first.split(" ", 2)[1]), headers

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    async def chunk(self) -> bytes:
        """A chunk of the body; empty for the last."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        """Close at once; what the other side still sends is answered with a reset."""
        self.opened.discard(self)
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Stream:
    """An event stream that was answered with `status`; for a 200 the position that came with its head is known."""

    def __init__(self, connection: Connection, status: int) -> None:
        self.connection = connection
        self.status = status
        self.parser = Parser()
        #: Whether it ended in order, with its last chunk.
        self.ended = False
        self._events: list[Event] = []

    @classmethod
    async def open(
        cls, port: int, target: str, *, last_id: str = "", accept: str = "*/*", receive_buffer: int | None = None
    ) -> Self:
        """Open, and read the first bytes of a 200; raises what BROKEN names."""
        connection = await Connection.open(port, receive_buffer=receive_buffer)
        try:
            headers = {"Accept": accept, **({"Last-Event-ID": last_id} if last_id else {})}
            status, _ = await connection.start_stream(target, headers)
            stream = cls(connection, status)
            if status == 200:
                async with asyncio.timeout(PATIENCE):
                    await stream._more()
        except BaseException:
            connection.close()
            raise
        return stream

    async def next(self) -> Event | None:
        """The next event; None after the last. Raises what BROKEN names where the connection breaks off."""
        while not self._events:
            if self.ended:
                return None
            await self._more()
        return self._events.pop(0)

    async def _more(self) -> None:
        chunk = await self.connection.chunk()
        self.ended = not chunk
        self._events += self.parser.feed(chunk)

    @property
    def position(self) -> str:
        """The id of the last event that was read, at the beginning where the stream stands."""
        return self.parser.last_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.close()
