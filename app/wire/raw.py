"""A message as an HTTP answer: the body as it is, everything else as header fields, named as a publish names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from app.domain.message import OCTET_STREAM, Message

Field = tuple[bytes, bytes]

#: Bytes of all fields for the message's own headers together; many clients refuse a head above 64 KiB.
MAX_BYTES = 32 << 10
#: Fields `Mq-Header-<name>` (count); Python's http.client refuses an answer with more than a hundred.
MAX_FIELDS = 64

_TYPED = {
    "correlation-id": b"mq-correlation-id",
    "type": b"mq-type",
    "priority": b"mq-priority",
    "persistent": b"mq-persistent",
    "reply-to": b"mq-reply-to",
}
_FORWARDED = re.compile(r"traceparent|tracestate|baggage|ce-[a-z0-9_.-]{1,125}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
#: A control character in a field would end it, and begin another (RFC 9110 section 5.5); a lone surrogate has no bytes.
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
#: Bytes around a field: colon, space, line end.
_AROUND = 4


def content_type(message: Message) -> bytes:
    """The media type; `application/octet-stream` where there is none, or what no field can hold."""
    text = message.content_type or ""
    return (text if _MEDIA_TYPE.fullmatch(text) else OCTET_STREAM).encode()


def fields(message: Message) -> list[Field]:
    """Everything beside body and content type.

    `Mq-Headers` has the message's own headers as one JSON object, as they are; those whose name and value can stand
    in a field stand in `Mq-Header-<name>` too. `Mq-Headers-Omitted` counts what there was no room for.
    """
    found = _as_field(b"mq-message-id", message.message_id)
    if message.redelivered:
        found.append((b"mq-redelivered", b"true"))
    own: dict[str, str] = {}
    for name, value in message.headers.items():
        field = _TYPED.get(name) or (name.encode() if _FORWARDED.fullmatch(name) else None)
        line = [] if field is None else _as_field(field, value)
        found += line
        if not line:
            own[name] = value
    return found + _own(own)


def _as_field(name: bytes, value: str) -> list[Field]:
    """A field, or none where its value is empty, too long or has characters that no field may have."""
    if not value or len(value) > MAX_BYTES or _UNSPEAKABLE.search(value):
        return []
    return [(name, value.encode())]


def _own(headers: Mapping[str, str]) -> list[Field]:
    kept: dict[str, str] = {}
    left = MAX_BYTES
    for name, value in headers.items():
        size = len(_json({name: value}))
        if size <= left:
            kept[name] = value
            left -= size
    found = [(b"mq-headers", _json(kept).encode())] if kept else []
    if len(kept) < len(headers):
        found.append((b"mq-headers-omitted", b"%d" % (len(headers) - len(kept))))
    return found + list(_singly(kept, left))


def _json(headers: Mapping[str, str]) -> str:
    # json leaves DEL as it is, which no field may hold.
    return json.dumps(headers, separators=(",", ":")).replace("\x7f", "\\u007f")


def _singly(headers: Mapping[str, str], left: int) -> Iterator[Field]:
    """Once for each name, whose case HTTP does not keep; in JSON all of them stand anyway."""
    seen: set[bytes] = set()
    for name, value in headers.items():
        field = b"mq-header-" + name.lower().encode(errors="replace")
        size = len(field) + len(value.encode(errors="replace")) + _AROUND
        if not _NAME.fullmatch(name) or field in seen or size > left or len(seen) == MAX_FIELDS:
            continue
        for line in _as_field(field, value):
            seen.add(field)
            left -= size
            yield line
