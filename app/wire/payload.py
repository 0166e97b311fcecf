"""Bodies: what is JSON, what is text, and the envelope that carries any of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from app.domain.errors import InvalidJson
from app.domain.message import Message, rfc3339


def is_json(content_type: str | None) -> bool:
    """Whether the media type is JSON: `application/json`, `text/json` or a `+json` suffix (RFC 6839)."""
    if content_type is None:
        return False
    essence = content_type.partition(";")[0].strip().lower()
    return essence in {"application/json", "text/json"} or essence.endswith("+json")


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - JSON is any value
    """The value of a JSON text (RFC 8259: UTF-8, no NaN); raises InvalidJson with the place of the fault."""
    try:
        return from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        return _parse_slowly(body, error)


#: What the fast parser refuses although the grammar of RFC 8259 allows it: deep nesting (section 9) and a
#: surrogate without its other half (section 8.2), which Python writes for a file name that is not UTF-8.
_TOO_STRICT = ("recursion limit", "hex escape")


def _parse_slowly(body: bytes, error: ValueError) -> Any:  # noqa: ANN401
    if any(words in str(error) for words in _TOO_STRICT):
        try:
            return json.loads(body.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as final:
            raise InvalidJson(f"the body is not valid JSON: {final}") from None
    raise InvalidJson(f"the body is not valid JSON: {error}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def check_json(body: bytes) -> None:
    """Raises InvalidJson unless the body is a JSON text."""
    parse_json(body)


def is_valid_json(body: bytes) -> bool:
    """Whether the body is a JSON text."""
    try:
        parse_json(body)
    except InvalidJson:
        return False
    return True


def as_text(body: bytes) -> str | None:
    """The body as text, or None where it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def body_member(message: Message) -> tuple[bytes, str]:
    """The body as JSON bytes, and how it got there: `json`, `text` or `base64`."""
    if is_json(message.content_type) and is_valid_json(message.body):
        return message.body, "json"  # pasted as it is: numbers keep their digits, members their order
    text = as_text(message.body)
    if text is not None:
        return json.dumps(text, ensure_ascii=False).encode(), "text"
    return b'"' + base64.b64encode(message.body) + b'"', "base64"


def envelope(message: Message, position: str | None, more: Mapping[str, Any] | None = None) -> bytes:
    """One message as a JSON object; `position` becomes its `id`, null where it has none; `more` are further members."""
    body, encoding = body_member(message)
    head = {
        "id": position,
        "message_id": message.message_id,
        "mq_uri": str(message.mq_uri),
        "content_type": message.content_type,
        "headers": dict(message.headers),
    }
    tail = {
        "body_encoding": encoding,
        "redelivered": message.redelivered,
        "received_at": rfc3339(message.received_at),
        **(more or {}),
    }
    parts = [dumps(head)[:-1], b',"body":', body, b",", dumps(tail)[1:]]
    return b"".join(parts)


def dumps(value: dict[str, Any]) -> bytes:
    """A JSON object without spaces, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
