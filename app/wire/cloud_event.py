"""A message as a CloudEvent in structured mode (CloudEvents 1.0, JSON event format)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from app.domain.message import Message, rfc3339
from app.wire.payload import body_member, dumps, is_valid_json

#: What a body already is that was published in structured mode.
STRUCTURED = "application/cloudevents+json"
#: `type` of a message that names none.
MESSAGE = "mq-gateway.message"
_PREFIX = "ce-"


def structured(message: Message) -> bytes:
    """One JSON object: the message's own `ce-*` headers, else what is known of it, and its body as `data`.

    What was published in structured mode is passed on as it is.
    """
    if _essence(message.content_type) == STRUCTURED and is_valid_json(message.body):
        return message.body
    body, encoding = body_member(message)
    member = b'"data_base64":' if encoding == "base64" else b'"data":'
    attributes = {**_known(message), **_own(message.headers)}
    return b"".join([dumps(attributes)[:-1], b",", member, body, b"}"])


def _known(message: Message) -> dict[str, Any]:
    """The attributes that section "REQUIRED Attributes" wants, and what else is known."""
    uri = message.mq_uri
    known = {
        "specversion": "1.0",
        "id": message.message_id,
        "source": f"/mq/{quote(uri.service, safe='')}/{uri.type}/{quote(uri.name, safe='')}",
        "type": MESSAGE,
        "time": rfc3339(message.received_at),
    }
    return known if message.content_type is None else {**known, "datacontenttype": message.content_type}


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """The `ce-*` headers, their values decoded (HTTP Protocol Binding, section "HTTP Header Values")."""
    return {
        name[len(_PREFIX) :].lower(): _decoded(value)
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX) and name[len(_PREFIX) :].isalnum()
    }


def _decoded(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            value = json.loads(value)
        except ValueError:
            value = value[1:-1]
    return unquote(value)


def _essence(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
