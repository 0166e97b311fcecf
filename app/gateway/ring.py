"""The last events of one Topic, encoded once, read by any number of cursors.

A reader is only a number into the ring: replay and live are the same loop, so there is no seam between them.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire import sse

#: What a position looks like; anything else from a client is no position of ours.
POSITION = re.compile(r"(?P<epoch>[0-9A-Za-z_-]{6,16})\.(?P<number>[0-9]{1,15})")
#: What an entry costs beside its bytes: the objects around them.
_ENTRY_BYTES = 512
#: Bytes of joined slices kept for readers at the same place; readers at many places must not multiply the ring.
_MEMO_BYTES = 1 << 20


@dataclass(slots=True)
class Entry:
    """One event, or (without message) a gap and its reason. `encoded` holds the bytes per format, from the first use.

    `mark` is what the position after it names.
    """

    number: int
    mark: int
    message: Message | None
    gap: str = ""
    encoded: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slice:
    """What a reader gets at once: the joined bytes, its new cursor, how many of it are messages, and gap reasons."""

    data: bytes
    cursor: int
    events: int
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a reader starts; `gap` says why it cannot continue exactly, None where it can."""

    cursor: int
    gap: str | None = None
    missed: int | None = None


class Ring:
    """Bounded in events and bytes; the oldest give way. `epoch` names this ring's life in every position."""

    def __init__(self, uri: MqUri, max_events: int, max_bytes: int) -> None:
        self.uri = uri
        self.epoch = secrets.token_urlsafe(6)
        self._held = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._last = 0
        self._last_evicted_gap = 0
        self._slices: dict[tuple[int, str, int], Slice] = {}
        self._joined = 0

    @property
    def buffered(self) -> int:
        """Bytes held: messages, what is encoded of them, and what is joined for readers."""
        return self._held + self._joined

    @property
    def last(self) -> int:
        """Number of the newest entry, 0 before the first."""
        return self._last

    @property
    def oldest(self) -> int:
        """Number of the oldest entry kept; one more than `last` where none is."""
        return self._last + 1 - len(self._entries)

    def position(self, cursor: int) -> str:
        """The event id that says: everything up to this entry was seen."""
        return f"{self.epoch}.{cursor}"

    def append(self, message: Message) -> None:
        self._append(Entry(self._last + 1, self._last + 1, message))

    def append_gap(self) -> None:
        """The link was lost: whoever reads across this place is told."""
        self._append(Entry(self._last + 1, self._last + 1, None, "link_lost"))

    def _append(self, entry: Entry) -> None:
        self._last += 1
        self._entries.append(entry)
        self._held += _cost(entry)
        self._forget_slices()
        while len(self._entries) > self._max_events or self._held > self._max_bytes:
            if not self._evict():
                break

    def _evict(self) -> bool:
        """Let the oldest go; False where only the newest is left: it stays whatever its size, to be delivered."""
        if not self._may_evict():
            return False
        entry = self._entries.popleft()
        self._evicted(entry)
        self._held -= _cost(entry)
        if entry.message is None:
            self._last_evicted_gap = entry.number
        return True

    def _may_evict(self) -> bool:
        return len(self._entries) > 1

    def _evicted(self, entry: Entry) -> None:
        """It is no longer here."""

    def give_way(self, wanted: int) -> int:
        """Free at least `wanted` bytes if they are to be had, the oldest entries first; the bytes freed."""
        before = self.buffered
        self._forget_slices()
        while before - self.buffered < wanted and self._evict():
            pass
        return before - self.buffered

    def missed(self, cursor: int, until: int) -> int | None:
        """Messages after `cursor` (older than the oldest kept) up to `until`; None where a lost link lies between."""
        kept = islice(self._entries, until + 1 - self.oldest)
        if cursor < self._last_evicted_gap or any(entry.message is None for entry in kept):
            return None
        return until - cursor

    def resume(self, last_event_id: str) -> Resume:
        """Where a client with this id goes on. The id is never trusted: a full match, or a gap."""
        found = POSITION.fullmatch(last_event_id)
        if found is None or found["epoch"] != self.epoch or int(found["number"]) > self._last:
            return Resume(self.oldest - 1, "restart")
        cursor = int(found["number"])
        if cursor + 1 < self.oldest:
            return Resume(self.oldest - 1, "expired", self.missed(cursor, self.oldest - 1))
        return Resume(cursor)

    def since(self, seconds: int) -> int:
        """The cursor before what was received from this Unix time on."""
        older = (entry.message is not None and entry.message.received_at < seconds for entry in reversed(self._entries))
        return next((self._last - newer for newer, is_older in enumerate(older) if is_older), self.oldest - 1)

    def read(self, cursor: int, form: str, max_bytes: int) -> Slice:
        """What came after the cursor, up to `max_bytes` but at least one entry; joined once for all readers there."""
        key = (cursor, form, max_bytes)
        known = self._slices.get(key)
        if known is None:
            known = self._join(cursor, form, max_bytes)
            self._remember(key, known)
        return known

    def _remember(self, key: tuple[int, str, int], piece: Slice) -> None:
        if self._joined + len(piece.data) > _MEMO_BYTES:
            self._forget_slices()
        self._slices[key] = piece
        self._joined += len(piece.data)

    def _forget_slices(self) -> None:
        self._slices.clear()
        self._joined = 0

    def _join(self, cursor: int, form: str, max_bytes: int) -> Slice:
        parts: list[bytes] = []
        size = events = 0
        gaps: list[str] = []
        for index in range(cursor + 1 - self.oldest, len(self._entries)):
            entry = self._entries[index]
            data = self._encode(entry, form)
            if parts and size + len(data) > max_bytes:
                break
            parts.append(data)
            size += len(data)
            cursor = entry.number
            events += entry.message is not None
            gaps += [entry.gap] if entry.message is None else []
        return Slice(b"".join(parts), cursor, events, tuple(gaps))

    def _encode(self, entry: Entry, form: str) -> bytes:
        data = entry.encoded.get(form)
        if data is None:
            data = entry.encoded[form] = self._encoded(entry, form)
            self._held += len(data)
        return data

    def _encoded(self, entry: Entry, form: str) -> bytes:
        position = f"{self.epoch}.{entry.mark}"
        if entry.message is None:
            return sse.gap(str(self.uri), entry.gap, None, position=position)
        return sse.FORMATS[form](entry.message, position)


def _cost(entry: Entry) -> int:
    message = 0 if entry.message is None else entry.message.size
    return _ENTRY_BYTES + message + sum(map(len, entry.encoded.values()))
