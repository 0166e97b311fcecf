"""One reader of a Topic with a stream behind it: in a replay until the live ring has what is next, then there."""

from __future__ import annotations

import asyncio
from typing import Protocol

from app.domain.stream import BEFORE_FIRST, FIRST, StreamStart
from app.gateway.replay import Replay
from app.gateway.replays import Replays
from app.gateway.stream import Batch, StreamRequest
from app.gateway.stream_ring import POSITION, StreamRing
from app.gateway.topic_reader import Home, TopicReader
from app.wire import sse

#: Seconds for a position ahead of the live ring to be reached: it may come from a replica that is faster.
AHEAD_SECONDS = 2.0
#: So many times as long where the live ring moves on meanwhile: it may be catching up.
AHEAD_TIMES = 15
#: The oldest part of the live ring, one in so many, is no place to come to from a replay.
EDGE = 4


class StreamHome(Home, Protocol):
    """What such a reader needs of its Topic."""

    live: StreamRing
    replays: Replays
    #: The link is down: what is not here may be in the stream all the same.
    is_cut_off: bool


class StreamReader(TopicReader):
    """`after` and `start` are as replays want them; both are only kept up to date while it reads the past."""

    def __init__(self, topic: StreamHome, request: StreamRequest) -> None:
        self.after: int | None = None
        self.start: StreamStart = FIRST
        self._stream = topic
        #: Whether the cursor is one of the live ring.
        self._is_live = True
        self._replay: Replay | None = None
        #: Why the next event does not follow what the client saw; told when it is known which one is next.
        self._due: str | None = None
        self._doubt: asyncio.TimerHandle | None = None
        self._doubts = 0
        super().__init__(topic, topic.live, request)

    def _begin(self, request: StreamRequest) -> None:
        found = POSITION.fullmatch(request.last_event_id or "")
        if found is not None:
            self.after = int(found[1])
            self.opening = sse.position_only(f"s.{self.after}")
            self._go_on()
        elif request.last_event_id:
            self.opening = self._begin_anew()
        elif request.since is not None or request.start == "earliest":
            # No position yet: a client that comes back before the first event asks for the same again.
            self._seek(FIRST if request.since is None else StreamStart("time", request.since))
        else:
            self.opening = sse.position_only(self._ring.position(self._cursor))

    def _go_on(self) -> None:
        """After the position it has."""
        if self._is_ahead:
            self._is_live = False
            end = self._stream.live.end
            self._doubt = asyncio.get_running_loop().call_later(AHEAD_SECONDS, self._doubted, end)
        elif not self._go_live():
            self._seek(None)

    @property
    def _is_ahead(self) -> bool:
        return self.after is not None and self.after > self._stream.live.end

    def _doubted(self, end: int) -> None:
        """Seconds have passed: the stream does not have what this position says was seen, or is not here yet."""
        self._doubt = None
        self._doubts += 1
        moves = self._stream.is_cut_off or (self._stream.live.end != end and self._doubts < AHEAD_TIMES)
        if self._is_ahead and not moves:
            self.tell(self._begin_anew())
        else:
            self._go_on()
            self.wake()

    def _begin_anew(self) -> bytes:
        """With the oldest there is; the gap to be told at once where there is none."""
        self.after, empty = None, not self._stream.live.last
        if empty:
            self.after = BEFORE_FIRST
            self._topic.tell_gap("restart")
        else:
            self._due = "restart"
        self._seek(None)
        position = f"s.{BEFORE_FIRST}"
        gap = sse.gap(str(self._stream.live.uri), "restart", None, position=position)
        return sse.position_only(position) + gap if empty else b""

    def _seek(self, start: StreamStart | None) -> None:
        """In the past."""
        self._is_live = False
        self.start = start or FIRST
        self._stream.replays.join(self)

    def _go_live(self) -> bool:
        """Read from the live ring if that has what is next."""
        live = self._stream.live
        cursor = None if self.after is None or self.after > live.end else live.cursor_after(self.after)
        if cursor is None or self._is_better_off_in_the_past(cursor):
            return False
        self._leave_past()
        self._is_live = True
        self._ring, self._cursor = live, cursor
        return True

    def _is_better_off_in_the_past(self, cursor: int) -> bool:
        """While a replay has more: what is about to leave the live ring would soon be a gap."""
        live = self._stream.live
        near_the_end = (cursor - live.oldest) * EDGE < live.last - live.oldest
        return near_the_end and self._replay is not None and self._find_place(self._replay) and super()._has_events()

    def _leave_past(self) -> None:
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        self._replay = None
        self._stream.replays.leave(self)

    # What a replay calls.

    def enter(self, replay: Replay) -> None:
        """It reads from this replay's ring now."""
        self._replay = replay
        self._ring = replay.ring

    def quit(self) -> None:
        """That replay is over."""
        self._replay = None

    # Reading.

    def end(self, reason: str) -> None:
        if self._end is None and not self._is_live and self._replay is not None:
            self._find_place(self._replay)
        super().end(reason)

    def _has_events(self) -> bool:
        return self._settle() and super()._has_events()

    def _settle(self) -> bool:
        """Stand in the ring that has what is next; False where none has it yet."""
        if self._is_live or (self._end is None and self._due is None and self._go_live()):
            return True
        return self._replay is not None and self._find_place(self._replay)

    def _find_place(self, replay: Replay) -> bool:
        """Where it stands in the replay; False where that has gone on without it, and it queues for another one."""
        ring = replay.ring
        cursor = (0 if ring.oldest == 1 else None) if self.after is None else ring.cursor_after(self.after)
        if cursor is not None:
            self._cursor = cursor
            return True
        self._replay = None
        if self._end is None:
            self._stream.replays.join(self)
        return False  # it is woken when there is something

    def _take_events(self, max_bytes: int) -> Batch:
        if not self._settle() or not super()._has_events():
            return Batch(b"", 0)
        replay = self._replay
        if replay is None:
            return super()._take_events(max_bytes)
        gap, self._due = b"" if self._due is None else self._gap(self._due, None), None
        piece = self._read(max_bytes)
        self.after = replay.ring.mark(self._cursor)
        replay.taken(self._cursor)
        return Batch(gap + piece.data, piece.events)

    async def close(self) -> None:
        self._leave_past()
        await super().close()
