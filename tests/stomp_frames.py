"""A small STOMP 1.2 codec for tests, written apart from the gateway's so that neither hides a mistake of the other.

Reference: STOMP Protocol Specification 1.2, sections "Value Encoding", "Body" and "Heart-beating".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_UNESCAPES = {"\\\\": "\\", "\\r": "\r", "\\n": "\n", "\\c": ":"}
#: CONNECT and CONNECTED are not escaped, for the sake of STOMP 1.0 peers.
_UNESCAPED_COMMANDS = frozenset({"CONNECT", "CONNECTED"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One STOMP frame; of a repeated header the first value counts."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __getitem__(self, header: str) -> str:
        return self.headers[header]

    def encode(self) -> bytes:
        """The frame as bytes, NUL included; `content-length` is added only where the body is not empty."""
        headers = dict(self.headers)
        if self.body:
            headers.setdefault("content-length", str(len(self.body)))
        escape = str if self.command in _UNESCAPED_COMMANDS else _escape
        lines = [self.command, *(f"{escape(key)}:{escape(value)}" for key, value in headers.items())]
        return "\n".join([*lines, "", ""]).encode() + self.body + b"\0"


class FrameReader:
    """Bytes in, frames out; `beats` counts the line feeds between frames."""

    def __init__(self) -> None:
        self.beats = 0
        self._buffer = bytearray()
        self._head: tuple[str, dict[str, str], int] | None = None

    @property
    def pending(self) -> bytes:
        """What came in and is not yet a whole frame."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes; raises ValueError for what is not STOMP."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        # The head is parsed once, however many pieces a large body comes in.
        if self._head is None:
            self._skip_beats()
            self._head = self._parse()
        if self._head is None:
            return None
        command, headers, start = self._head
        stop = self._end_of_body(start, headers.get("content-length"))
        if stop is None:
            return None
        body = bytes(self._buffer[start:stop])
        del self._buffer[: stop + 1]
        self._head = None
        return Frame(command, headers, body)

    def _skip_beats(self) -> None:
        size = len(self._buffer)
        beats = next((at for at in range(size) if self._buffer[at] not in b"\r\n"), size)
        self.beats += self._buffer[:beats].count(b"\n")
        del self._buffer[:beats]

    def _parse(self) -> tuple[str, dict[str, str], int] | None:
        end = _END_OF_HEAD.search(self._buffer)
        return (*_parse_head(bytes(self._buffer[: end.start()])), end.end()) if end else None

    def _end_of_body(self, start: int, length: str | None) -> int | None:
        if length is None:
            found = self._buffer.find(b"\0", start)
            return None if found < 0 else found
        stop = start + int(length)
        if len(self._buffer) <= stop:
            return None
        if self._buffer[stop] != 0:
            raise ValueError("no NUL after content-length bytes")
        return stop


def _parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    command, *lines = [line.removesuffix("\r") for line in head.decode().split("\n")]
    unescape = str if command in _UNESCAPED_COMMANDS else _unescape
    headers: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"header line without a colon: {line!r}")
        headers.setdefault(unescape(key), unescape(value))
    return command, headers


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def _unescape(text: str) -> str:
    parts, at = [], 0
    while (slash := text.find("\\", at)) >= 0:
        escape = text[slash : slash + 2]
        # ActiveMQ sends undefined escapes; the test sees them as they came.
        parts += [text[at:slash], _UNESCAPES.get(escape, escape)]
        at = slash + 2
    return "".join([*parts, text[at:]])
