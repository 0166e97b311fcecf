"""Servers of a test between a browser and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

_HEAD = re.compile(r"(?:GET|POST|HEAD|OPTIONS) [^\r\n]* HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*")


class Listener:
    """A server on a port of its own that leaves no connection behind; browsers also open some they never use."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        """The port; at the end nobody listens there, and every connection is reset."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await self.cut()

    async def cut(self) -> None:
        """Reset every connection."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()
        for writer in writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.serve(reader, writer)
        writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Relay(Listener):
    """A TCP relay before the gateway, to cut a browser's connections where the browser does not know why.

    Of several `targets`, ports, the first that takes a connection gets it. `requests` are the heads that went through
    it. `held` keeps back what the gateway says until it is released; `pieces` sends that on byte by byte.
    """

    def __init__(self, *targets: int) -> None:
        super().__init__()
        self.targets = targets
        self.requests: list[str] = []
        self.pieces = False
        self._released = asyncio.Event()
        self._released.set()

    def hold(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await self._connect()
        self._writers.append(back)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(self._ask(reader, back), self._answer(there, writer))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for port in self.targets:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", port)
        raise ConnectionRefusedError

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.requests += _HEAD.findall(data.decode("latin-1"))
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self._released.is_set():
                    await self._released.wait()
                    data += await _gathered(reader)
                step = 1 if self.pieces else len(data)
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


async def _gathered(reader: asyncio.StreamReader) -> bytes:
    """What is there already, without waiting for any."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            return await reader.read(1 << 20)
    return b""


class EmptyPage(Listener):
    """An origin of its own with an empty page."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
        writer.write(head + b"<p>empty\n")
        await writer.drain()
