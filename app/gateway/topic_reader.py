"""One reader of a Topic: a cursor into its ring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from app.config.settings import TopicSettings
from app.gateway.ring import Resume, Ring, Slice
from app.gateway.stream import Batch, Counts, Reader, Slow, StreamRequest
from app.wire import sse


class Home(Protocol):
    """What a reader needs of its Topic."""

    settings: TopicSettings
    counts: Callable[[], Counts]

    def leave(self, reader: TopicReader) -> None:
        """It has gone."""

    def tell_gap(self, reason: str) -> None:
        """It was told of a gap."""

    def tell_size(self) -> None:
        """A ring may have changed."""


class TopicReader(Reader):
    """A cursor into the ring."""

    def __init__(self, topic: Home, ring: Ring, request: StreamRequest) -> None:
        super().__init__(topic.counts())
        self._topic = topic
        self._ring = ring
        self._format = request.format
        self._slow: Slow = request.slow or topic.settings.slow
        #: Number of the last entry that this reader gets, once its stream ends.
        self._until: int | None = None
        self._cursor = ring.last
        self._begin(request)

    def _begin(self, request: StreamRequest) -> None:
        """Where it starts, and what it is told first."""
        resume = _start(self._ring, request)
        self._cursor = resume.cursor
        self.opening = sse.position_only(self._ring.position(self._cursor))
        if resume.gap is not None:
            self.opening += self._gap(resume.gap, resume.missed)

    def _gap(self, reason: str, missed: int | None) -> bytes:
        self._topic.tell_gap(reason)
        position = self._ring.position(self._cursor)
        return sse.gap(str(self._ring.uri), reason, missed, position=position)

    def end(self, reason: str) -> None:
        # What comes from now on is not waited for: a busy Topic would never let its readers go.
        if self._end is None:
            self._until = self._ring.last
        super().end(reason)

    def _has_events(self) -> bool:
        return self._cursor < (self._ring.last if self._until is None else self._until)

    def _take_events(self, max_bytes: int) -> Batch:
        gap = self._catch_up() if self._cursor + 1 < self._ring.oldest else b""
        if self._end == "slow":
            return Batch(gap, 0, "slow")
        piece = self._read(max_bytes)
        return Batch(gap + piece.data, piece.events)

    def _read(self, max_bytes: int) -> Slice:
        piece = self._ring.read(self._cursor, self._format, max_bytes)
        self._cursor = piece.cursor
        self._topic.tell_size()
        for reason in piece.gaps:
            self._topic.tell_gap(reason)
        return piece

    def _catch_up(self) -> bytes:
        """The ring went on without this reader: say so, and go where its policy says."""
        if self._slow == "disconnect":
            self._end = "slow"  # the position it has makes the gap known when it comes back
            return b""
        target = self._ring.last - 1 if self._slow == "latest" else self._ring.oldest - 1
        missed = self._ring.missed(self._cursor, target)
        self._cursor = target
        return self._gap("slow", missed)

    async def close(self) -> None:
        self._topic.leave(self)


def _start(ring: Ring, request: StreamRequest) -> Resume:
    if request.last_event_id:
        return ring.resume(request.last_event_id)
    if request.since is not None:
        return Resume(ring.since(request.since))
    return Resume(ring.last if request.start == "now" else ring.oldest - 1)
