"""A reference EventSource parser, written from WHATWG HTML sections 9.2.5 and 9.2.6 and from nothing of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Section 9.2.5: a line ends with CRLF, LF or CR. The last piece is an incomplete line and is dropped.
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """What a browser dispatches."""

    data: str
    type: str = "message"
    last_event_id: str = ""


@dataclass(slots=True)
class EventSource:
    """A stream read to its end: what was dispatched, and the state that would be used to reconnect."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_event_id: str = ""
    reconnection_ms: int | None = None
    _data: list[str] = field(default_factory=list)
    _type: str = ""
    _id: str = ""

    @classmethod
    def read(cls, stream: bytes) -> EventSource:
        """Parse the whole stream; raises UnicodeDecodeError where it is not UTF-8 (a browser would guess)."""
        source = cls()
        text = stream.decode().removeprefix("\ufeff")
        for line in _LINE_END.split(text)[:-1]:
            source._line(line)
        return source

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.reconnection_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(Event("\n".join(self._data), self._type or "message", self._id))
        self._data, self._type = [], ""
