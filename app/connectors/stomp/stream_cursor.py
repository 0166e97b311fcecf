"""Where a subscription to a RabbitMQ stream goes on, and what the offsets it delivers mean.

`x-stream-offset: offset=N` is inclusive, and an N that is not there is dealt with without a word: below, it is clamped
to the first message kept; above, nothing comes before N is reached, in a stream made anew too. So what follows N is
asked for at N, which has to come first and is dropped; a first offset beyond the next one, or before it, tells that
something is missing. Observed on 3.10.8.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.domain.stream import BEFORE_FIRST, EMPTY_AFTER, Missing, StreamStart

#: The header of SUBSCRIBE that says where to begin, and of MESSAGE that says where it stands.
OFFSET_HEADER = "x-stream-offset"
#: What RabbitMQ's reader goes by, 64 bits with a sign.
MAX_OFFSET = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Of one delivery; `repeated` ones are not for the listener."""

    offset: int
    missing: Missing | None = None
    repeated: bool = False


class StreamCursor:
    """One subscription's, over all connections."""

    def __init__(self, start: StreamStart) -> None:
        self._start = start
        self._last = start.value if start.kind == "after" else None
        #: Whether nothing came on this connection yet.
        self._fresh = True
        self._asked_at: float | None = None
        #: Whether it begins with a stream made anew.
        self._anew = False

    @property
    def misses_last(self) -> bool:
        """Whether the message it had last did not come again on this connection, as it does where it still is."""
        return self._fresh and self._last is not None and self._last > BEFORE_FIRST

    def begin_anew(self) -> None:
        """The stream is another one: go on with its first message."""
        self._anew = True

    def ask(self) -> str:
        """The value of the header for a SUBSCRIBE on a new connection."""
        now = asyncio.get_running_loop().time()
        asked, self._asked_at, self._fresh = self._asked_at, now, True
        if self._start.kind == "last" and self._last is None and asked is not None and now - asked >= EMPTY_AFTER:
            self._last = BEFORE_FIRST  # there was nothing; more than the latest few may have come since
        if self._anew:
            return "first"
        if self._last is not None:
            return f"offset={min(max(self._last, 0), MAX_OFFSET)}"
        return f"timestamp={self._start.value}" if self._start.kind == "time" else self._start.kind

    def place(self, text: str | None) -> Place | None:
        """What the offset of a delivery means; None where it is none."""
        if text is None or not (text.isascii() and text.isdigit()):
            return None
        offset = int(text)
        fresh, self._fresh = self._fresh, False
        if self._anew:
            self._anew, self._last = False, offset
            return Place(offset, "restart")
        if self._last is not None and offset <= self._last and not (fresh and offset < self._last):
            return Place(offset, repeated=True)
        last, self._last = self._last, offset
        return Place(offset, self._missing(last, offset) if fresh and last is not None else None)

    @staticmethod
    def _missing(last: int, offset: int) -> Missing | None:
        if offset < last:
            return "restart"
        return "expired" if offset > last + 1 else None
