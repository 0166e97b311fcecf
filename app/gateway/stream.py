"""What a stream is to whoever writes it to a client: something that becomes ready, is taken, and is handed over."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

Format = Literal["data", "envelope", "cloudevents"]
Slow = Literal["gap", "latest", "disconnect"]


@dataclass(frozen=True, slots=True)
class StreamLease:
    """Queue streams whose events are leases of `seconds`; `ack_url` is what the client is told to answer them at.

    With `mq_uri` it is told whose they are, for there are others on its stream.
    """

    ack_url: str
    seconds: float
    mq_uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What a client asked for. `slow` None means what the destination's configuration says; `lease` None: auto.

    `since`: from about this time on (Unix time in seconds).
    """

    format: Format = "data"
    last_event_id: str | None = None
    start: Literal["now", "earliest"] = "now"
    since: int | None = None
    slow: Slow | None = None
    status: bool = False
    lease: StreamLease | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes for one write, the number of messages in them, and why the stream ends after them (None: it goes on).

    `end` is one of drain, slow, cancelled, reload, memory. `shares` tells how many messages are of which destination,
    by its number, where the stream has several.
    """

    data: bytes
    events: int
    end: str | None = None
    shares: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Counts:
    """What happened on one destination since the start."""

    published: int = 0
    delivered: int = 0
    gaps: int = 0


class Owner(Protocol):
    """Who takes what several readers have (see JointReader)."""

    def woken(self, reader: Reader) -> None:
        """This one may have something."""


class Reader(ABC):
    """One client's stream. Used by one task; `end` and `push` may come from anywhere on the loop."""

    #: What to write first: the position, for Topics.
    opening: bytes = b""
    #: Woken in place of whoever waits for `ready`.
    owner: Owner | None = None

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._wake: asyncio.Future[None] | None = None
        self._end: str | None = None
        self._notice = b""
        self._told = b""

    def push(self, notice: bytes) -> None:
        """An event of the gateway's own for this client; a newer one takes the place of one not yet taken."""
        self._notice = notice
        self.wake()

    def tell(self, events: bytes) -> None:
        """Events of this stream's own that come before what is queued, each of them."""
        self._told += events
        self.wake()

    def end(self, reason: str) -> None:
        """The stream ends after what is queued at this moment."""
        self._end = self._end or reason
        self.wake()

    def wake(self) -> None:
        """There may be something to take."""
        if self.owner is not None:
            self.owner.woken(self)
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def is_ready(self) -> bool:
        """Whether `take` has something."""
        return bool(self._notice or self._told or self._end or self._has_events())

    async def ready(self) -> None:
        """Returns when `take` has something; may be cancelled at any time."""
        while not self.is_ready:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def take(self, max_bytes: int = 65536) -> Batch:
        """What there is, at most about `max_bytes`; the end comes when everything queued was taken."""
        before, self._notice, self._told = self._notice + self._told, b"", b""
        batch = self._take_events(max_bytes)
        end = batch.end or (self._end if not self._has_events() else None)
        return Batch(before + batch.data, batch.events, end, batch.shares)

    @abstractmethod
    def _has_events(self) -> bool:
        """Whether events wait."""

    @abstractmethod
    def _take_events(self, max_bytes: int) -> Batch:
        """Take them."""

    def handed_over(self, batch: Batch) -> None:
        """The batch is in the socket; only to be called when the client was still there."""
        self._counts.delivered += batch.events

    @abstractmethod
    async def close(self) -> None:
        """The client is gone or done. Idempotent; gives back what was not handed over."""
