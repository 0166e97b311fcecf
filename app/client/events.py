"""Reading server-sent events (WHATWG HTML, section 9.2): bytes in, events out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: Bytes of one line and of one event's data: four times what the gateway takes as a body by default.
MAX_EVENT_BYTES = 16 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event has more than MAX_EVENT_BYTES; whoever sends that is no gateway."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its type (`message` where the stream names none), its data, and the last event id then."""

    name: str
    data: str
    id: str


class EventReader:
    """An incremental reader. `last_event_id` is where to resume, `retry_ms` what the server asked to wait."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._pending_id = last_event_id
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._rest = b""
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that are complete with this chunk; raises EventTooLarge."""
        for line in self._lines(chunk):
            if line:
                self._field(line)
                continue
            event = self._dispatch()
            if event is not None:
                yield event

    def _lines(self, chunk: bytes) -> list[bytes]:
        buffer = self._rest + chunk
        if not self._started:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = buffer
                return []
            buffer = buffer.removeprefix(_BOM)
            self._started = True
        # A CR at the end may be half of a CRLF: it waits for what comes next.
        held = b"\r" if buffer.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(buffer[: len(buffer) - len(held)])
        self._rest = rest + held
        self._bound(len(self._rest))
        return lines

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            self._bound(self._size)
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._pending_id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value[:9])

    def _dispatch(self) -> ServerEvent | None:
        self.last_event_id = self._pending_id
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        return ServerEvent(name or "message", b"\n".join(data).decode(errors="replace"), self.last_event_id)

    def _bound(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event has more than {MAX_EVENT_BYTES} bytes")
