"""A bare HTTP/1.1 client for the acceptance tests: keep-alive requests and event streams over asyncio sockets.

Written apart from the gateway and from any HTTP library, so that a test sees the bytes that are on the wire.
References: RFC 9112 (framing), WHATWG HTML section 9.2 (event streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

#: Seconds any single step may take before the test fails.
PATIENCE = 20.0
_LIMIT = 8 << 20
#: SO_LINGER with zero seconds: close() sends a reset.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; header names in lower case, of a repeated one the last."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code; None for what is no problem."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return str(self.json["code"])

    @property
    def outcome(self) -> str:
        """What became of a publish, as the answer tells it."""
        if self.status == 200:
            return "confirmed"
        return "unconfirmed" if self.status == 202 else str(self.json["outcome"])


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ", 2)[1]), headers


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk; empty for the last one, whose end is checked."""
    size = int((await reader.readuntil(b"\r\n")).strip(), 16)
    data = await reader.readexactly(size)
    if await reader.readexactly(2) != b"\r\n":
        raise AssertionError("a chunk without its end")
    return data


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    parts: list[bytes] = []
    while part := await _read_chunk(reader):
        parts.append(part)
    return b"".join(parts)


def _head(method: str, target: str, headers: dict[str, str] | None, length: int | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


class Http:
    """One connection; requests one after the other."""

    _opened: ClassVar[list[Http]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._opened.append(self)

    @classmethod
    async def close_all(cls) -> None:
        """End every connection of a test that is over, however it ended."""
        opened, cls._opened[:] = list(cls._opened), []
        for http in opened:
            # asyncio's transport (3.11) fails where it was closed with bytes unsent and has ended since.
            with contextlib.suppress(AttributeError):
                http.writer.transport.abort()
        for http in opened:
            with contextlib.suppress(ConnectionError):
                await http.writer.wait_closed()

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Self:
        """`receive_buffer` bytes make all buffering on this side small, for a reader that is to stall."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or _LIMIT)
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request and its whole response."""
        length = None if body is None else len(body)
        return await self.ask_raw(_head(method, target, headers, length) + (body or b""))

    async def ask_raw(self, request: bytes) -> Answer:
        """These bytes, and the response to them. Raises asyncio.IncompleteReadError where none comes."""
        async with asyncio.timeout(PATIENCE):
            self.writer.write(request)
            status, headers = await _read_head(self.reader)
            has_body = status != 204 and not request.startswith(b"HEAD ")
            body = await _read_body(self.reader, headers) if has_body else b""
            return Answer(status, headers, body)

    def reset(self) -> None:
        """Close with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()

    async def gone(self) -> None:
        """Wait until the other side has closed or reset the connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class Event:
    """One dispatched event. `id` is the client's lastEventId at that moment, as a browser shows it."""

    name: str
    data: str
    id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(slots=True)
class Parser:
    """The event stream interpretation of WHATWG HTML section 9.2.6."""

    last_id: str = ""
    retry: int | None = None
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _first: bool = True

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        data = self._rest + data
        if self._first and len(data) >= 3:
            data, self._first = data.removeprefix(b"\xef\xbb\xbf"), False
        # A CR at the end may be half a CRLF.
        keep = data.endswith(b"\r")
        lines = (data[:-1] if keep else data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + (b"\r" if keep else b"")
        return [event for line in lines if (event := self._line(line.decode("utf-8", "replace"))) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, self._data = self._data, []
        name, self._name = self._name, ""
        return Event(name or "message", "\n".join(data), self.last_id) if data else None


class Sse:
    """An open event stream. Bytes are read only while somebody asks for an event."""

    def __init__(self, http: Http, status: int, headers: dict[str, str]) -> None:
        self.http = http
        self.status = status
        self.headers = headers
        self.parser = Parser()
        self.ended = False
        self._events: list[Event] = []

    @classmethod
    async def open(
        cls,
        port: int,
        target: str,
        headers: dict[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
        expect: int | None = 200,
    ) -> Self:
        """Open a stream and read its first bytes; from then on it is subscribed. `expect` None takes any status."""
        http = await Http.connect(port, receive_buffer=receive_buffer)
        async with asyncio.timeout(PATIENCE):
            http.writer.write(_head("GET", target, headers, None))
            status, answered = await _read_head(http.reader)
        assert expect in (None, status), (target, status, await _read_body(http.reader, answered))
        stream = cls(http, status, answered)
        if status == 200:
            async with asyncio.timeout(PATIENCE):
                await stream._more()
        return stream

    @property
    def last_id(self) -> str:
        return self.parser.last_id

    async def _more(self) -> None:
        self.received(await _read_chunk(self.http.reader))

    def received(self, chunk: bytes) -> None:
        """Called with every chunk, an empty one at the end."""
        self.ended = not chunk
        self._events += self.parser.feed(chunk)

    async def next(self, timeout: float = PATIENCE) -> Event:
        """The next event; raises EOFError at a clean end and ConnectionError at any other."""
        try:
            async with asyncio.timeout(timeout):
                while not self._events:
                    if self.ended:
                        raise EOFError("the stream has ended")
                    await self._more()
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the stream broke off") from error
        return self._events.pop(0)

    async def take(self, number: int, timeout: float = PATIENCE) -> list[Event]:
        async with asyncio.timeout(timeout):
            return [await self.next(timeout) for _ in range(number)]

    async def until(self, wanted: Callable[[Event], bool], timeout: float = PATIENCE) -> list[Event]:
        """Events up to and including the first that fits."""
        seen: list[Event] = []
        async with asyncio.timeout(timeout):
            while not seen or not wanted(seen[-1]):
                seen.append(await self.next(timeout))
        return seen

    async def rest(self, timeout: float = PATIENCE) -> list[Event]:
        """Everything until the clean end; raises ConnectionError where the connection just breaks off."""
        seen: list[Event] = []
        with contextlib.suppress(EOFError):
            while True:
                seen.append(await self.next(timeout))
        return seen

    def reset(self) -> None:
        self.http.reset()

    def close(self) -> None:
        self.http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class RecordedSse(Sse):
    """A stream that keeps what came, byte for byte, without the chunks around it."""

    raw = b""

    def received(self, chunk: bytes) -> None:
        self.raw += chunk
        super().received(chunk)

    @property
    def blocks(self) -> list[bytes]:
        """The blocks of lines; a stream that stands at the end of one has b"" as its last."""
        return self.raw.split(b"\n\n")


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, timeout: float = PATIENCE) -> None:
    """Ask again and again what tells no one when it changes; raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(0.02)


async def ask(
    port: int, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    async with await Http.connect(port) as http:
        return await http.ask(method, target, body, headers)


async def post(port: int, target: str, body: bytes | str, headers: dict[str, str] | None = None) -> Answer:
    """One publish on a connection of its own."""
    return await ask(port, "POST", target, body.encode() if isinstance(body, str) else body, headers)


async def get_json(port: int, target: str, headers: dict[str, str] | None = None) -> Any:
    """The JSON behind a path; raises AssertionError on anything but 200."""
    answer = await ask(port, "GET", target, headers=headers)
    assert answer.status == 200, answer
    return answer.json


@contextlib.asynccontextmanager
async def connections(port: int, number: int) -> AsyncIterator[list[Http]]:
    """A number of keep-alive connections."""
    opened = [await Http.connect(port) for _ in range(number)]
    try:
        yield opened
    finally:
        for http in opened:
            http.close()
