"""A plain STOMP 1.2 client for tests: what a third party sees of the broker. Bare asyncio streams, no part of `app`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Self

from tests.stomp_frames import Frame, FrameReader

_READ_BYTES = 1 << 18


class StompError(Exception):
    """The broker answered ERROR; `frame` is what it sent."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(f"{frame.headers.get('message')}: {frame.body!r}")
        self.frame = frame


class StompClosed(ConnectionError):
    """The broker closed the connection; `received` are the frames nobody had asked for until then."""

    def __init__(self, received: list[Frame]) -> None:
        super().__init__(f"closed by the broker after {[frame.command for frame in received]}")
        self.received = received


class StompClient:
    """One connection. Frames are read only while somebody waits for one, so a test can also be a slow consumer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
        self.timeout = timeout
        self.connected = Frame("CONNECTED")
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._inbox: deque[Frame] = deque()
        self._ids = count(1)

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        user: str | None = "guest",
        password: str | None = "guest",
        vhost: str = "/",
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        timeout: float = 10,
        **headers: str,
    ) -> Self:
        """Connect to `host:port` and log in; `_` in a keyword stands for `-`, as in `client_id`. Raises StompError."""
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=tls, server_hostname=server_hostname if tls else None
            )
        client = cls(reader, writer, timeout)
        login = {key: value for key, value in (("login", user), ("passcode", password)) if value is not None}
        try:
            await client.send_frame(
                "CONNECT", {"accept-version": "1.2", "host": vhost, "heart-beat": "0,0", **login, **_dashes(headers)}
            )
            client.connected = await client.wait_for(lambda frame: frame.command == "CONNECTED")
        except BaseException:
            client.abort()
            raise
        return client

    async def send(
        self, destination: str, body: bytes | str = b"", headers: dict[str, str] | None = None, **more: str
    ) -> None:
        """SEND and wait for the RECEIPT. Raises StompError, StompClosed or TimeoutError."""
        data = body.encode() if isinstance(body, str) else body
        await self.request("SEND", {"destination": destination, **(headers or {}), **_dashes(more)}, data)

    async def subscribe(
        self, destination: str, *, ack: str = "auto", headers: dict[str, str] | None = None, **more: str
    ) -> str:
        """SUBSCRIBE, wait for the RECEIPT, return the subscription's id."""
        name = more.pop("id", None) or f"sub-{next(self._ids)}"
        asked = {"id": name, "destination": destination, "ack": ack, **(headers or {}), **_dashes(more)}
        await self.request("SUBSCRIBE", asked)
        return name

    async def unsubscribe(self, subscription: str, **headers: str) -> None:
        await self.request("UNSUBSCRIBE", {"id": subscription, **_dashes(headers)})

    async def next_message(self, timeout: float | None = None) -> tuple[dict[str, str], bytes]:
        """The next MESSAGE as (headers, body). Raises TimeoutError after `timeout` seconds, StompError, StompClosed."""
        frame = await self.wait_for(lambda frame: frame.command == "MESSAGE", timeout)
        return dict(frame.headers), frame.body

    async def messages(self, number: int, timeout: float | None = None) -> list[bytes]:
        """The bodies of the next `number` messages, each within `timeout` seconds."""
        return [(await self.next_message(timeout))[1] for _ in range(number)]

    async def ack(self, message: dict[str, str]) -> None:
        await self.request("ACK", {"id": message["ack"]})

    async def nack(self, message: dict[str, str], **headers: str) -> None:
        await self.request("NACK", {"id": message["ack"], **_dashes(headers)})

    async def request(self, command: str, headers: dict[str, str], body: bytes = b"") -> Frame:
        """Send a frame with a receipt of its own and wait for it."""
        receipt = f"receipt-{next(self._ids)}"
        await self.send_frame(command, {**headers, "receipt": receipt}, body)
        return await self.wait_for(
            lambda frame: frame.command == "RECEIPT" and frame.headers.get("receipt-id") == receipt
        )

    def _acknowledge_segments(self) -> None:
        """At once, on Linux: ActiveMQ has Nagle's algorithm on, and every answer would take 40 ms."""
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def send_frame(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send a frame and wait for nothing but the socket."""
        await self.send_bytes(Frame(command, headers, body).encode())

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(self.timeout):
            self._writer.write(data)
            await self._writer.drain()

    async def wait_for(self, wanted: Callable[[Frame], bool], timeout: float | None = None) -> Frame:
        """Take the first frame that fits, those already here first; others stay in order for later.

        Raises StompError at an ERROR frame unless it is wanted, StompClosed, TimeoutError.
        """
        async with asyncio.timeout(self.timeout if timeout is None else timeout):
            seen = 0
            while True:
                while seen == len(self._inbox):
                    await self._read()
                frame = self._inbox[seen]
                if wanted(frame) or frame.command == "ERROR":
                    del self._inbox[seen]
                    if wanted(frame):
                        return frame
                    raise StompError(frame)
                seen += 1

    async def silence(self, seconds: float) -> None:
        """Prove that no further frame comes for `seconds`; raises AssertionError with the frame otherwise."""
        try:
            frame = await self.wait_for(lambda _frame: True, seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected {frame}")

    async def closed(self, timeout: float | None = None) -> list[Frame]:
        """Wait until the broker closes and return the frames that nobody had taken."""
        try:
            await self.wait_for(lambda _frame: False, timeout)
        except StompClosed as end:
            return end.received
        except StompError as error:
            return [error.frame, *await self.closed(timeout)]
        raise AssertionError("not reached")

    async def disconnect(self) -> None:
        """DISCONNECT with receipt, then close."""
        await self.request("DISCONNECT", {})
        await self.close()

    async def close(self) -> None:
        """Close the socket without a word of STOMP; what is unacked goes back to the broker."""
        self._writer.close()
        try:
            async with asyncio.timeout(self.timeout):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        """Reset the connection at once; nothing where it is gone."""
        # asyncio before 3.11.5 forgets the protocol of a TLS transport that is closed twice, and abort() then fails.
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _read(self) -> None:
        try:
            data = await self._reader.read(_READ_BYTES)
            self._acknowledge_segments()
        except ConnectionError:
            data = b""
        if not data:
            raise StompClosed(list(self._inbox))
        self._inbox.extend(self._frames.feed(data))


def _dashes(headers: dict[str, str]) -> dict[str, str]:
    return {key.replace("_", "-"): value for key, value in headers.items()}
