"""The last events of one Topic, encoded once, read by any number of cursors.

A reader is only a number into the ring: replay and live are the same loop, so there is no seam between them.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from dataclasses import dataclass, field

from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire import sse

#: What a position looks like; anything else from a client is no position of ours.
POSITION = re.compile(r"(?P<epoch>[0-9A-Za-z_-]{6,16})\.(?P<number>\d{1,15})")
#: What an entry costs beside its bytes: the objects around them.
_ENTRY_BYTES = 512


@dataclass(slots=True)
class Entry:
    """One event, or (without message) a lost link. `encoded` holds the bytes per format, made at the first use."""

    number: int
    message: Message | None
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
        self.bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._last = 0
        self._last_evicted_gap = 0
        self._slices: dict[tuple[int, str, int], Slice] = {}

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
        self._append(message, len(message.body))

    def append_gap(self) -> None:
        """The link was lost: whoever reads across this place is told."""
        self._append(None, 0)

    def _append(self, message: Message | None, size: int) -> None:
        self._last += 1
        self._entries.append(Entry(self._last, message))
        self.bytes += size + _ENTRY_BYTES
        self._slices.clear()
        self._evict()

    def _evict(self) -> None:
        # The newest stays whatever its size: it is about to be delivered.
        while len(self._entries) > 1 and (len(self._entries) > self._max_events or self.bytes > self._max_bytes):
            entry = self._entries.popleft()
            self.bytes -= _cost(entry)
            if entry.message is None:
                self._last_evicted_gap = entry.number

    def missed(self, cursor: int) -> int | None:
        """Messages between a cursor and the oldest kept; None where a lost link lies between."""
        return None if cursor < self._last_evicted_gap else max(0, self.oldest - 1 - cursor)

    def resume(self, last_event_id: str) -> Resume:
        """Where a client with this id goes on. The id is never trusted: a full match, or a gap."""
        found = POSITION.fullmatch(last_event_id)
        if found is None or found["epoch"] != self.epoch or int(found["number"]) > self._last:
            return Resume(self.oldest - 1, "restart")
        cursor = int(found["number"])
        if cursor + 1 < self.oldest:
            return Resume(self.oldest - 1, "expired", self.missed(cursor))
        return Resume(cursor)

    def read(self, cursor: int, form: str, max_bytes: int) -> Slice:
        """What came after the cursor, up to `max_bytes` but at least one entry; joined once for all readers there."""
        key = (cursor, form, max_bytes)
        known = self._slices.get(key)
        if known is None:
            known = self._slices[key] = self._join(cursor, form, max_bytes)
        return known

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
            gaps += ["link_lost"] if entry.message is None else []
        return Slice(b"".join(parts), cursor, events, tuple(gaps))

    def _encode(self, entry: Entry, form: str) -> bytes:
        data = entry.encoded.get(form)
        if data is None:
            data = entry.encoded[form] = self._encoded(entry, form)
            self.bytes += len(data)
        return data

    def _encoded(self, entry: Entry, form: str) -> bytes:
        position = self.position(entry.number)
        if entry.message is None:
            return sse.gap(str(self.uri), "link_lost", None, position=position)
        if form == "envelope":
            return sse.message_envelope(entry.message, position)
        return sse.message_data(entry.message, position)


def _cost(entry: Entry) -> int:
    body = 0 if entry.message is None else len(entry.message.body)
    return _ENTRY_BYTES + body + sum(map(len, entry.encoded.values()))
