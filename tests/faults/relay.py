"""A TCP relay between the gateway and a real broker: cuts, resets and freezes what a shared broker must keep."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from tests.brokers.process import LOOPBACK

_READ_BYTES = 1 << 16
#: SO_LINGER with zero seconds: close() sends a reset.
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Use `async with Relay.to(port) as relay`; `relay.port` is what the gateway connects to."""

    def __init__(self, target: int) -> None:
        self.port = 0
        #: Connections taken so far.
        self.taken = 0
        #: Bytes from the gateway, and from the broker, in the present connection.
        self.sent = self.received = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, target: int) -> AsyncIterator[Relay]:
        """Relay to a port of this machine until the block ends."""
        relay = cls(target)
        await relay.open()
        try:
            yield relay
        finally:
            await relay.shut()

    async def open(self) -> None:
        """Listen; after `shut` on the same port again."""
        listener = socket.create_server((LOOPBACK, self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listener)

    async def shut(self, *, reset: bool = False) -> None:
        """Refuse new connections and end the present ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for _ in range(5):  # turns of the loop: what was just accepted gets its handler, which then can end it
            await asyncio.sleep(0)
        self.reset() if reset else self.cut()
        self._flowing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close the connections in order (FIN)."""
        for client in self._clients:
            client.close()

    def reset(self) -> None:
        """Close the connections with a reset (RST)."""
        for client in self._clients:
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on in either direction; the connections stay."""
        self._flowing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.taken += 1
        self.sent = self.received = 0
        self._clients.add(writer)
        # Cancelled by `shut`: the end of a handler, not news for asyncio's logger.
        with contextlib.suppress(asyncio.CancelledError, OSError):
            there_reader, there = await asyncio.open_connection(LOOPBACK, self._target)
            try:
                await self._both_ways(reader, writer, there_reader, there)
            finally:
                there.close()
        self._clients.discard(writer)
        writer.close()

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there: asyncio.StreamWriter,
    ) -> None:
        """Until one of the two sides ends."""
        ways = {
            asyncio.ensure_future(self._pass_on(reader, there, "sent")),
            asyncio.ensure_future(self._pass_on(there_reader, writer, "received")),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        while data := await reader.read(_READ_BYTES):
            await self._flowing.wait()
            setattr(self, counter, getattr(self, counter) + len(data))
            writer.write(data)
            await writer.drain()
