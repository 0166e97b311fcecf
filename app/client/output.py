"""Showing events: messages to standard output, what the gateway says about its stream as notices."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

from app.client.connection import parse_object, printable
from app.client.events import ServerEvent

#: The gateway's own events (HTTP contract, section 2); anything else is a message.
_NOTICES = frozenset({"gap", "status", "lease", "unavailable"})


class EventPrinter:
    """Writes each message and a line feed at once, so that a pipe gets it when it came."""

    def __init__(self, output: BinaryIO, notice: Callable[[str], None], *, envelope: bool, as_json: bool) -> None:
        self._output = output
        self._notice = notice
        self._envelope = envelope
        self._as_json = as_json

    def show(self, event: ServerEvent) -> bool:
        """Whether it was a message; raises BrokenPipeError when nobody reads any more."""
        if event.name in _NOTICES:
            self._notice(_sentence(event))
            return False
        self._output.write((self._as_object(event) if self._as_json else _body(event)) + b"\n")
        self._output.flush()
        return True

    def _as_object(self, event: ServerEvent) -> bytes:
        data: Any = event.data
        if self._envelope:
            data = parse_object(event.data.encode()) or event.data
        value = {"event": event.name, "id": event.id or None, "data": data}
        return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _body(event: ServerEvent) -> bytes:
    """The message's bytes: what is not UTF-8 travels as `event: binary` in base64."""
    if event.name == "binary":
        try:
            return base64.b64decode(event.data, validate=True)
        except ValueError:
            pass
    return event.data.encode()


def _sentence(event: ServerEvent) -> str:
    data = parse_object(event.data.encode())
    if event.name == "gap":
        missed = data.get("missed")
        amount = "an unknown number of" if missed is None else missed
        return printable(f"gap in {data.get('mq_uri')} ({data.get('reason')}): {amount} messages missed")
    return printable(f"{event.name}: {event.data}")


def table(rows: Iterable[Sequence[str]]) -> str:
    """Columns for people, each as wide as what is in it; one line a row."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
