"""A complete HTTP answer as a value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.wire.harmless import OF_DATA

#: Name in lower case and value, as ASGI wants them.
Header = tuple[bytes, bytes]

JSON = b"application/json"
NO_STORE: Header = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, media type, body and further headers; the exchange adds the request id and CORS."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[Header, ...] = (NO_STORE,)
    #: What keeps a browser from making more of it (see app.wire.harmless).
    harmless: tuple[Header, ...] = OF_DATA


def json_answer(value: Any, status: int = 200) -> Answer:  # noqa: ANN401 - JSON is any value
    """`value` as JSON in UTF-8."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status=status, content_type=JSON, body=body)
