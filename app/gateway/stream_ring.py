"""Rings whose positions are the offsets of a stream: `s.<offset>`, the same in every process and after any restart."""

from __future__ import annotations

import re
from bisect import bisect_right

from app.connectors.base import Delivery
from app.domain.stream import BEFORE_FIRST
from app.domain.uri import MqUri
from app.gateway.ring import Entry, Ring

#: What a position looks like: the offset of the last message seen, -1 before the first one there can be.
POSITION = re.compile(r"s\.(-1|0|[1-9][0-9]{0,17})")


class StreamRing(Ring):
    """Cursors are contiguous numbers as in every ring; offsets rise and may have holes.

    `base` is the offset after which this ring begins, None where that is not known before its first message.
    """

    def __init__(self, uri: MqUri, max_events: int, max_bytes: int, base: int | None = None) -> None:
        super().__init__(uri, max_events, max_bytes)
        self.epoch = "s"
        self.base = base

    @property
    def end(self) -> int:
        """Offset of the newest message, or of where the ring begins."""
        return self.mark(self.last)

    def mark(self, cursor: int) -> int:
        """The offset behind which a cursor stands."""
        index = cursor - self.oldest
        if index >= 0:
            return self._entries[index].mark
        return BEFORE_FIRST if self.base is None else self.base

    def position(self, cursor: int) -> str:
        return f"{self.epoch}.{self.mark(cursor)}"

    def cursor_after(self, offset: int) -> int | None:
        """The cursor of a reader that has seen everything up to this offset; None where the next may be gone."""
        if self.base is None or offset < self.base:
            return None
        return self.oldest - 1 + bisect_right(self._entries, offset, key=_mark)

    def add(self, delivery: Delivery) -> None:
        """A message, and before it the gap that it tells of."""
        offset = delivery.offset
        if offset is None:
            raise ValueError("a stream's delivery has an offset")
        if self.base is None:
            self.base = offset - 1
        if delivery.missing is not None:
            self._append(Entry(self.last + 1, offset - 1, None, delivery.missing))
        self._append(Entry(self.last + 1, offset, delivery.message))

    def _evicted(self, entry: Entry) -> None:
        self.base = entry.mark


class ReplayRing(StreamRing):
    """Keeps what nobody has taken yet, whatever its size: the broker sends no more than was asked for."""

    #: Number of the last entry that somebody took.
    taken = 0

    def _may_evict(self) -> bool:
        return super()._may_evict() and self._entries[0].number <= self.taken


def _mark(entry: Entry) -> int:
    return entry.mark
