"""What a stream is to whoever writes it to a client: something that becomes ready, is taken, and is handed over."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

Format = Literal["data", "envelope", "cloudevents"]
Slow = Literal["gap", "latest", "disconnect"]


@dataclass(frozen=True, slots=True)
class StreamLease:
    """Queue streams whose events are leases of `seconds`; `ack_url` is what the client is told to answer them at."""

    ack_url: str
    seconds: float


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

    `end` is one of drain, slow, cancelled, reload, memory.
    """

    data: bytes
    events: int
    end: str | None = None


@dataclass(slots=True)
class Counts:
    """What happened on one destination since the start."""

    published: int = 0
    delivered: int = 0
    gaps: int = 0


class Reader(ABC):
    """One client's stream. Used by one task; `end` and `push` may come from anywhere on the loop."""

    #: What to write first: the position, for Topics.
    opening: bytes = b""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._wake: asyncio.Future[None] | None = None
        self._end: str | None = None
        self._notice = b""

    def push(self, notice: bytes) -> None:
        """An event of the gateway's own for this client; a newer one takes the place of one not yet taken."""
        self._notice = notice
        self.wake()

    def end(self, reason: str) -> None:
        """The stream ends after what is queued at this moment."""
        self._end = self._end or reason
        self.wake()

    def wake(self) -> None:
        """There may be something to take."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def ready(self) -> None:
        """Returns when `take` has something; may be cancelled at any time."""
        while not (self._notice or self._end or self._has_events()):
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def take(self, max_bytes: int = 65536) -> Batch:
        """What there is, at most about `max_bytes`; the end comes when everything queued was taken."""
        notice, self._notice = self._notice, b""
        batch = self._take_events(max_bytes)
        end = batch.end or (self._end if not self._has_events() else None)
        return Batch(notice + batch.data, batch.events, end)

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
