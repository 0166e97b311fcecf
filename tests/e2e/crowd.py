"""Many clients at little cost: plain sockets, no parser. They do what no library would let them do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

#: SO_LINGER with zero seconds: close() sends a reset.
_RESET = struct.pack("ii", 1, 0)
#: Connects under way at the same time: less than any backlog.
_AT_ONCE = 50

T = TypeVar("T")


class Raw:
    """A connection as the kernel has it: nothing is read or sent by itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Raw:
        """`receive_buffer` bytes keep the kernel from reading for a client that does not."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    @property
    def local_port(self) -> int:
        return int(self.sock.getsockname()[1])

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, size: int = 65536) -> bytes:
        """What is there; empty at the end, however it came."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.sock, size)
        except ConnectionError:
            return b""

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to the piece that holds the mark; raises ConnectionError where the end comes first."""
        data = b""
        while mark not in data:
            piece = await self.read()
            if not piece:
                raise ConnectionResetError(f"ended before {mark!r}: {data[-200:]!r}")
            data += piece
        return data

    async def rest(self) -> bytes:
        """Everything until the end."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


def get(path: str) -> bytes:
    """The head of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post_head(path: str, length: int) -> bytes:
    """The head of a POST whose body has `length` bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()


async def open_stream(port: int, path: str, *, receive_buffer: int | None = None) -> Raw:
    """An event stream whose first bytes have come: from then on it is subscribed."""
    raw = await Raw.connect(port, receive_buffer=receive_buffer)
    await raw.send(get(path))
    head = await raw.read_until(b": welcome")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return raw


async def each(work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int = _AT_ONCE) -> None:
    """Do it for every item, `at_once` of them at the same time."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def gather_crowd(number: int, one: Callable[[int], Awaitable[Raw]]) -> list[Raw]:
    """So many connections, made some at a time."""
    crowd: list[Raw] = []

    async def join(index: int) -> None:
        crowd.append(await one(index))

    await each(join, range(number))
    return crowd
