"""One client's event stream on raw ASGI: a loop of ready, take, send, in one task.

Nothing here knows what is streamed. What has gathered since the last write goes out as one message, so a slow
client gets few large writes and a fast one many small ones; a client that takes nothing at all is cut off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from app.api.answer import Header
from app.api.connection import Connection
from app.api.exchange import Exchange
from app.gateway.outbox import Outbox
from app.gateway.stream import Batch, Reader
from app.wire import sse

HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # Never stored, and never compressed on the way: compression holds events back.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)

#: Milliseconds a client is told to wait before it comes back, spread so that not all come at once.
RETRY_MS = (1000, 5000)
#: Seconds for the last words of a stream that is not allowed any more.
LAST_WORDS_SECONDS = 2.0
#: A batch of this many bytes is followed by a turn of the loop for everybody else.
LARGE_BATCH = 64 << 10

#: Why a stream ended where its reader did not say: the closed set of `streams_closed_total{reason}` is these
#: and the reader's drain, slow, cancelled and reload, and what `EventStream.end` is told: expired, revoked, forbidden.
CLIENT = "client"
STALLED = "stalled"
MEMORY = "memory"
ERROR = "error"


def spread_retry_ms() -> int:
    """A random number of milliseconds for `retry:`."""
    return random.randint(*RETRY_MS)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of silence before a comment, and seconds without progress before a client is cut off."""

    heartbeat: float
    write: float


class EventStream:
    """Writes what a reader has to a client until one of them ends."""

    __slots__ = (
        "_connection",
        "_end",
        "_exchange",
        "_gone",
        "_idle",
        "_last_words",
        "_outbox",
        "_patience",
        "_reader",
        "_sent",
        "_told",
    )

    def __init__(
        self, exchange: Exchange, reader: Reader, patience: Patience, outbox: Outbox, sent: Callable[[Batch], None]
    ) -> None:
        self._exchange = exchange
        self._reader = reader
        self._patience = patience
        self._outbox = outbox
        self._sent = sent
        self._gone = False
        #: Why it ended where the client has not just gone.
        self._end = CLIENT
        self._idle: asyncio.Timeout | None = None
        #: Why it is not allowed any more, and when it is cut off.
        self._told: str | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._connection = Connection(exchange, self._disconnected)

    def _disconnected(self) -> None:
        """Called by the server; ends the wait for events at once."""
        self._gone = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self._idle is not None and not self._idle.expired():
            self._idle.reschedule(asyncio.get_running_loop().time())

    def end(self, reason: str) -> None:
        """It is not allowed any more: no event follows, and who does not take the end of it soon is cut off."""
        self._told = reason
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._silence)
        self._interrupt()

    def _silence(self) -> None:
        self._end = self._told or ERROR
        self._connection.abort()
        self._disconnected()

    @property
    def _over(self) -> bool:
        return self._gone or self._connection.is_closing()

    async def run(self) -> str:
        """Stream until the end, and say why it ended: one of drain, slow, cancelled, reload, client, stalled,
        memory, expired, revoked, forbidden."""
        try:
            # At most one batch waits for a client here: the next is taken when the kernel has all of this one.
            self._connection.write_through()
            async with asyncio.timeout(self._patience.write):
                await self._exchange.start(200, HEADERS)
            self._exchange.forget_head()
            # In one piece with the head: browsers and proxies report the stream as open at its first byte.
            opening = sse.retry(spread_retry_ms()) + sse.comment("welcome") + self._reader.opening
            await self._send(opening)
            while not self._over:
                batch = await self._next() if self._told is None else None
                if self._told is not None:
                    await self._send(sse.retry(spread_retry_ms()), more=False)
                    return self._told
                reason = await self._write(batch) if batch is not None else None
                if reason is not None:
                    return reason
        except TimeoutError:
            # The transport's close would wait for the stalled client to take what is unsent: for ever.
            self._connection.abort()
            return STALLED
        finally:
            self._connection.forget()
            if self._last_words is not None:
                self._last_words.cancel()
        return self._end

    def _cut_off(self) -> None:
        """Too much waits for clients, and this one has not taken its batch for longest."""
        self._end = MEMORY
        self._connection.abort()
        self._disconnected()

    async def _next(self) -> Batch | None:
        """What to write next: events, or a comment after a silence; None when the client has gone."""
        try:
            async with asyncio.timeout(self._patience.heartbeat * random.uniform(0.8, 1.0)) as self._idle:
                await self._reader.ready()
        except TimeoutError:
            return None if self._over or self._told else Batch(sse.comment(), 0)
        finally:
            self._idle = None
        return self._reader.take()

    async def _write(self, batch: Batch) -> str | None:
        """Write a batch; the reason of the end where it is the last one."""
        if batch.data:
            await self._send(batch.data)
            if self._connection.unsent():
                with self._outbox.holding(batch.data, self._cut_off):
                    await self._send(b"")  # returns when the kernel has taken it all
        if self._over:
            return self._end  # whatever the socket did with the bytes, the reader takes them back
        self._reader.handed_over(batch)
        self._sent(batch)
        if batch.end is not None:
            await self._send(sse.retry(spread_retry_ms()), more=False)
            return batch.end
        if len(batch.data) >= LARGE_BATCH:
            await asyncio.sleep(0)
        return None

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        await self._connection.send(data, more=more, patience=self._patience.write)
