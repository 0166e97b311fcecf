"""A reference EventSource parser, written from WHATWG HTML sections 9.2.5 and 9.2.6 and from nothing of ours."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Section 9.2.5: a line ends with CRLF, LF or CR. The last piece is an incomplete line.
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """What a browser dispatches."""

    data: str
    type: str = "message"
    last_event_id: str = ""


@dataclass(slots=True)
class EventSource:
    """A stream being read: what was dispatched, and the state that would be used to reconnect."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_event_id: str = ""
    reconnection_ms: int | None = None
    _data: list[str] = field(default_factory=list)
    _type: str = ""
    _id: str = ""
    _rest: str = ""
    _began: bool = False
    # A CR ends its line at once; an LF that comes next belongs to it.
    _after_cr: bool = False
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=codecs.getincrementaldecoder("utf-8"), compare=False, repr=False
    )

    @classmethod
    def read(cls, stream: bytes) -> EventSource:
        """Parse the whole stream; raises UnicodeDecodeError where it is not UTF-8 (a browser would guess)."""
        return cls.read_pieces([stream])

    @classmethod
    def read_pieces(cls, pieces: Iterable[bytes]) -> EventSource:
        """The same for a stream that comes in pieces. What is incomplete at its end is dropped."""
        source = cls()
        for piece in pieces:
            source.feed(piece)
        source._decoder.decode(b"", final=True)
        return source

    def feed(self, piece: bytes) -> None:
        """Take what arrived; raises UnicodeDecodeError."""
        text = self._decoder.decode(piece)
        if not text:
            return
        if not self._began:
            self._began, text = True, text.removeprefix("\ufeff")
        self._take(text.removeprefix("\n") if self._after_cr else text, ends_with_cr=text.endswith("\r"))

    def _take(self, text: str, *, ends_with_cr: bool) -> None:
        self._after_cr = ends_with_cr
        *lines, self._rest = _LINE_END.split(self._rest + text)
        for line in lines:
            self._line(line)

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
