"""A scripted STOMP server: does on demand what no real broker will, and remembers every frame it got.

By default it behaves: CONNECTED for CONNECT, a RECEIPT for every `receipt`, heart-beats off. Everything else
is told to it by the test, on the peer (for connections to come) or on one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from tests.brokers.process import LOOPBACK
from tests.stomp_frames import Frame, FrameReader

#: Seconds any wait may take unless the test says otherwise.
DEADLINE = 5.0
_READ_BYTES = 1 << 16
_CONNECTED = {"version": "1.2", "server": "scripted/1.0", "heart-beat": "0,0"}


@dataclass(kw_only=True)
class Script:
    """How the peer answers by itself. Replace a field at any time; what is under way is not taken back."""

    #: Headers of CONNECTED; None: CONNECT is never answered.
    connected: Mapping[str, str] | None = field(default_factory=lambda: dict(_CONNECTED))
    #: Sent instead of CONNECTED, and the connection is closed after it.
    refusal: Frame | None = None
    #: False: receipts gather in `Connection.held` until `release`.
    receipts: bool = True
    #: False: a connection that comes in is not read from the start.
    reading: bool = True


class Connection:
    """One client's connection as the peer sees it."""

    def __init__(self, number: int, script: Script, writer: asyncio.StreamWriter) -> None:
        #: 1 for the first connection of the peer.
        self.number = number
        self.received: list[Frame] = []
        self.held: list[str] = []
        #: Set when the client is gone or the peer closed.
        self.ended = asyncio.Event()
        self._script = script
        self._writer = writer
        self._reader = FrameReader()
        self._may_read = asyncio.Event()
        if script.reading:
            self._may_read.set()

    @property
    def beats(self) -> int:
        """Heart-beats received."""
        return self._reader.beats

    async def send(self, command: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send one frame, whatever it is."""
        await self.send_bytes(Frame(command, headers or {}, body).encode())

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes, STOMP or not."""
        self._writer.write(data)
        async with asyncio.timeout(DEADLINE):
            await self._writer.drain()

    async def message(self, subscription: str, body: bytes = b"", **headers: str) -> None:
        """Send a MESSAGE; `_` in a keyword stands for `-`."""
        known = {"subscription": subscription, "message-id": f"m-{len(body)}", "destination": "/queue/scripted"}
        await self.send("MESSAGE", known | {key.replace("_", "-"): value for key, value in headers.items()}, body)

    async def release(self, *receipts: str) -> None:
        """Send held receipts in the order given; without arguments all of them, in theirs."""
        for receipt in receipts or tuple(self.held):
            self.held.remove(receipt)
            await self.send("RECEIPT", {"receipt-id": receipt})

    async def beat(self) -> None:
        """Send one heart-beat."""
        await self.send_bytes(b"\n")

    def delay_small_writes(self) -> None:
        """Nagle's algorithm, which asyncio switches off: a small write waits until the one before is acknowledged."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

    def stop_reading(self) -> None:
        """Read no more: the client's writes fill the socket buffers and then block."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def close(self) -> None:
        """Close in order (FIN)."""
        self._may_read.set()
        self._writer.close()

    def half_close(self) -> None:
        """FIN in our direction only; the client can go on sending."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Close with a reset (RST)."""
        self._may_read.set()
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def wait_ended(self, timeout: float = DEADLINE) -> None:
        """Wait until the client has gone. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            await self.ended.wait()

    async def serve(self, reader: asyncio.StreamReader, taken: Callable[[Connection, Frame], None]) -> None:
        """Read frames until the end, hand each to `taken`, answer by the script."""
        try:
            while data := await self._read(reader):
                for frame in self._reader.feed(data):
                    self.received.append(frame)
                    taken(self, frame)
                    await self._answer(frame)
        except OSError:
            pass  # The client reset the connection, or this side did: the end all the same.
        finally:
            self._writer.close()
            self.ended.set()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        await self._may_read.wait()
        data = await reader.read(_READ_BYTES)
        await self._may_read.wait()
        return data

    async def _answer(self, frame: Frame) -> None:
        if frame.command in {"CONNECT", "STOMP"}:
            await self._answer_connect()
        elif receipt := frame.headers.get("receipt"):
            self.held.append(receipt)
            if self._script.receipts:
                await self.release(receipt)

    async def _answer_connect(self) -> None:
        if self._script.refusal is not None:
            await self.send_bytes(self._script.refusal.encode())
            self._writer.close()
        elif self._script.connected is not None:
            await self.send("CONNECTED", self._script.connected)


class ScriptedPeer:
    """Listens on a loopback port; use `async with ScriptedPeer.listen() as peer`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections: list[Connection] = []
        #: Every frame with its connection, in the order they came.
        self.received: list[tuple[Connection, Frame]] = []
        self.port = 0
        self._taken: set[int] = set()
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def listen(
        cls, script: Script | None = None, *, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[ScriptedPeer]:
        """Listen until the block ends; with `tls` for TLS."""
        peer = cls(script or Script())
        peer._tls = tls
        async with peer.listening():
            yield peer

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """As `listen`, of a peer that is made already."""
        await self.open()
        try:
            yield self
        finally:
            await self.shut()

    @property
    def address(self) -> str:
        """`host:port`; `localhost`, the name in the certificate, where it speaks TLS."""
        return f"{'localhost' if self._tls else LOOPBACK}:{self.port}"

    @property
    def host(self) -> str:
        return self.address.partition(":")[0]

    async def open(self) -> None:
        """Listen; after `shut` on the same port again."""
        listener = socket.create_server((LOOPBACK, self.port))
        # Small, so that a peer that stops reading is felt after little data.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, ssl=self._tls, limit=1 << 14)

    async def shut(self) -> None:
        """Refuse new connections and close the present ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for _ in range(5):  # turns of the loop: who was accepted just now becomes a connection, to be closed
                await asyncio.sleep(0)
        for connection in self.connections:
            connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def connection(self, number: int = 1, timeout: float = DEADLINE) -> Connection:
        """The connection with this number, 1 for the first, as soon as it is there. Raises TimeoutError."""
        await self._until(lambda: len(self.connections) >= number, timeout)
        return self.connections[number - 1]

    async def frame(
        self, command: str, timeout: float = DEADLINE, *, where: Callable[[Frame], bool] = lambda _frame: True
    ) -> Frame:
        """The next frame of this command that no call returned before. Raises TimeoutError."""
        return (await self.frame_from(command, timeout, where=where))[1]

    async def frame_from(
        self, command: str, timeout: float = DEADLINE, *, where: Callable[[Frame], bool] = lambda _frame: True
    ) -> tuple[Connection, Frame]:
        """As `frame`, with the connection it came on."""

        def found() -> list[int]:
            return [
                at
                for at, (_, frame) in enumerate(self.received)
                if at not in self._taken and frame.command == command and where(frame)
            ]

        await self._until(lambda: bool(found()), timeout)
        at = found()[0]
        self._taken.add(at)
        return self.received[at]

    async def frames(self, command: str, number: int, timeout: float = DEADLINE) -> list[Frame]:
        """The next `number` frames of this command, each within `timeout` seconds."""
        return [await self.frame(command, timeout) for _ in range(number)]

    async def none(self, command: str, seconds: float) -> None:
        """Prove that no further frame of this command comes for `seconds`; raises AssertionError otherwise."""
        try:
            frame = await self.frame(command, seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected {frame}")

    def count(self, command: str) -> int:
        """Frames of this command so far, on all connections."""
        return sum(frame.command == command for _, frame in self.received)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = Connection(len(self.connections) + 1, self.script, writer)
        self.connections.append(connection)
        self._wake()
        # Cancelled by `shut`: the end of a handler, not news for asyncio's logger.
        with contextlib.suppress(asyncio.CancelledError):
            await connection.serve(reader, self._take)

    def _take(self, connection: Connection, frame: Frame) -> None:
        self.received.append((connection, frame))
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await self._news.wait()
