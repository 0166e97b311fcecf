"""Server-sent events (WHATWG HTML, section 9.2): values to bytes.

A line ends with LF, CRLF or CR, so a body is split at all three: a lone CR could otherwise forge a field.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from app.domain.message import Message
from app.wire.cloud_event import structured
from app.wire.payload import as_text, envelope


def event(data: bytes, *, name: str | None = None, position: str | None = None) -> bytes:
    """One event; `data` must be UTF-8, `name` and `position` ours (no line ends)."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    parts = [b"id: %s\n" % position.encode()] if position is not None else []
    if name is not None:
        parts.append(b"event: %s\n" % name.encode())
    parts += [b"data: ", data.replace(b"\n", b"\ndata: "), b"\n\n"]
    return b"".join(parts)


def json_event(name: str, value: dict[str, Any], *, position: str | None = None) -> bytes:
    """One event of the gateway's own, its data a JSON object on one line."""
    return event(json.dumps(value, separators=(",", ":")).encode(), name=name, position=position)


def position_only(position: str) -> bytes:
    """Sets the client's lastEventId and fires nothing: an id without data."""
    return b"id: %s\n\n" % position.encode()


def retry(milliseconds: int) -> bytes:
    """Tells the client how long to wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def comment(text: str = "") -> bytes:
    """Keeps the connection alive; fires nothing. `text` is ours (no line ends)."""
    return b": %s\n\n" % text.encode()


def gap(mq_uri: str, reason: str, missed: int | None, *, position: str | None) -> bytes:
    """`event: gap`: something cannot be continued exactly. `missed` counts events, None where unknown."""
    return json_event("gap", {"mq_uri": mq_uri, "reason": reason, "missed": missed}, position=position)


def message_data(message: Message, position: str | None) -> bytes:
    """format=data: the body itself, or `event: binary` with base64 where it is not UTF-8."""
    if as_text(message.body) is None:
        return event(base64.b64encode(message.body), name="binary", position=position)
    return event(message.body, position=position)


def message_envelope(message: Message, position: str | None) -> bytes:
    """format=envelope: one JSON object."""
    return event(envelope(message, position), position=position)


def message_cloud_event(message: Message, position: str | None) -> bytes:
    """format=cloudevents: a CloudEvent in structured mode."""
    return event(structured(message), position=position)


#: By the name of a format.
FORMATS: dict[str, Callable[[Message, str | None], bytes]] = {
    "data": message_data,
    "envelope": message_envelope,
    "cloudevents": message_cloud_event,
}
