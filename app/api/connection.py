"""The connection behind a request, for what lasts: whether the client is still there, and what it has not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from app.api.exchange import ClientGone, Exchange

T = TypeVar("T")


class Connection:
    """What the server's seam tells of the connection; without the seam (another server) what ASGI tells.

    `on_gone` is called once when the client leaves, until `forget`.
    """

    __slots__ = ("_exchange", "_on_gone", "abort", "forget", "is_closing", "unsent", "write_through")

    def __init__(self, exchange: Exchange, on_gone: Callable[[], None]) -> None:
        seam = exchange.seam
        self.abort: Callable[[], None] = seam.get("abort", _nothing)
        self.is_closing: Callable[[], bool] = seam.get("is_closing", _never)
        self.unsent: Callable[[], int] = seam.get("write_buffer_size", _no_bytes)
        self.write_through: Callable[[], None] = seam.get("write_through", _nothing)
        self._exchange = exchange
        self._on_gone = on_gone
        if "on_disconnect" in seam:
            self.forget: Callable[[], None] = seam["on_disconnect"](on_gone)
        else:
            self.forget = _canceller(asyncio.ensure_future(self._listen()))

    async def _listen(self) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            pass
        self._on_gone()

    async def send(self, data: bytes, *, more: bool = True, patience: float) -> None:
        """Send within `patience` seconds, which start anew whenever the client took something; else TimeoutError.

        Cancelling a send that waits is safe: it waits before it writes, never between.
        """
        while True:
            unsent = self.unsent()
            try:
                async with asyncio.timeout(patience):
                    return await self._exchange.send(data, more=more)
            except TimeoutError:
                if self.unsent() >= unsent:
                    raise


async def while_there(exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes; raises ClientGone then."""
    task = asyncio.get_running_loop().create_task(work)
    gone = asyncio.Event()
    running = [task]
    connection = Connection(exchange, partial(_leave, running, gone))
    try:
        return await task
    except asyncio.CancelledError:
        if gone.is_set():
            raise ClientGone from None
        raise
    finally:
        connection.forget()
        # An error holds this frame, and the task the error: what it is about would stay until somebody looks.
        running.clear()
        del task


def _leave(running: list[asyncio.Task[Any]], gone: asyncio.Event) -> None:
    gone.set()
    for task in running:
        task.cancel()


def _canceller(task: asyncio.Task[None]) -> Callable[[], None]:
    def cancel() -> None:
        task.cancel()

    return cancel


def _nothing() -> None:
    """Stands for `abort` where the server offers none: it closes the connection when the request ends."""


def _never() -> bool:
    return False


def _no_bytes() -> int:
    return 0
