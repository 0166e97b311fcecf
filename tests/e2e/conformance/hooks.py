"""What Schemathesis cannot know from the document; loaded by its own process, not by pytest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import schemathesis
from schemathesis.core.failures import ServerError

from app.domain.errors import GatewayError
from app.domain.uri import MqUri
from app.wire.headers import is_reserved

Case: TypeAlias = "schemathesis.Case[Any]"

#: Whether whoever asks has no credentials that hold.
UNKNOWN = bool(os.environ.get("MQ_CONFORMANCE_UNKNOWN"))

#: What an event stream consists of. OpenAPI 3.1 has no place for it: `itemSchema` came with 3.2.
EVENT = {
    "type": "object",
    "required": ["data"],
    "additionalProperties": False,
    "properties": {
        "event": {"enum": ["message", "binary", "gap", "status", "unavailable", "lease"]},
        "data": {"type": "string"},
        # A position, one of several destinations, or a lease.
        "id": {
            "type": "string",
            "pattern": "^([0-9A-Za-z_-]{6,16}[.][0-9]+|v[.][0-9A-Za-z_.,-]+|[0-9A-Za-z_-]{20,}[.][0-9A-Za-z_-]{22})$",
        },
        "retry": {"type": "integer", "minimum": 1000},
    },
}


@schemathesis.serializer("application/x-ndjson")
def lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A text as it is, any other value as one line."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Have every event of a stream checked."""
    for path in ("/mq/{service}/{type}/{name}/events", "/events"):
        stream = raw_schema["paths"][path]["get"]["responses"]["200"]["content"]
        stream["text/event-stream"] = {"itemSchema": EVENT}


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Nobody waits for as long as may be waited."""
    wait = _number((query or {}).get("wait"))
    return query if query is None or wait is None or not 0 <= wait <= 20 else {**query, "wait": min(wait, 0.1)}


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _uris(case: Case) -> list[str]:
    """The destinations that the query or the body names."""
    named = (case.query or {}).get("uri", [])
    listed = case.body.get("uris") if isinstance(case.body, Mapping) else None
    found = [*(named if isinstance(named, list) else [named]), *(listed if isinstance(listed, list) else [])]
    return [str(uri) for uri in found]


def _is_name(uri: str) -> bool:
    """Whether an mqURI is one beyond its pattern: a name has its length, and is without what none may have."""
    try:
        MqUri.parse(uri)
    except GatewayError:
        return False
    return uri == uri.strip()


def _may_take(case: Case) -> bool:
    """Whether what a schema cannot tell of leases is in order: their longest, and what goes with what."""
    query: Mapping[str, Any] = case.query or {}
    body = case.body if isinstance(case.body, Mapping) else None
    if "subscription" in query:
        return False
    times = [_number(each) for each in (query.get("lease"), *((body or {}).get(name) for name in ("lease", "delay")))]
    if any(time is not None and time > 900 for time in times):
        return False
    if case.operation.path.endswith("/events"):
        explicit = str(query.get("ack")) == "explicit"
        named = [*_uris(case), f"::{(case.path_parameters or {}).get('type', '')}::"]
        topic = any("::topic" in uri.lower() for uri in named)
        return not topic if explicit else "lease" not in query
    if case.operation.path.endswith(("/ack", "/nack", "/renew")):
        return ("lease" in query) != (body is not None)
    return True


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: Case) -> bool:
    """Drop valid cases that a schema cannot tell from what is refused: a length in bytes, what not every
    broker takes, names that are reserved."""
    name = str((case.path_parameters or {}).get("name", ""))
    if len(name.encode(errors="replace")) > 255 or name != name.strip():
        return False
    uris = _uris(case)
    if case.operation.path == "/ticket" and not 1 <= len(set(uris)) <= 32:
        return False
    if not all(map(_is_name, uris)) or not _may_take(case):
        return False
    headers: Mapping[str, Any] = case.headers or {}
    reply_to = headers.get("Mq-Reply-To")
    if reply_to is not None and reply_to != "demo::Queues::jobs":
        return False
    return not _is_refused(headers.get("Mq-Headers")) and not _is_refused_batch(case)


def _is_refused(own: Any) -> bool:
    return isinstance(own, dict) and any(map(is_reserved, own))


def _is_refused_batch(case: Case) -> bool:
    """Where one message refuses all, or where none but refused ones may be there."""
    if not case.operation.label.endswith("/batch"):
        return False
    if case.media_type == "application/x-ndjson" or not isinstance(case.body, list):
        return isinstance(case.body, str) and not _is_json_lines(case.body)
    elements = [element for element in case.body if isinstance(element, dict)]
    return any(
        element.get("delay_ms") is not None
        or _is_refused(element.get("headers"))
        or "json" in str(element.get("content_type"))
        for element in elements
    )


def _is_json_lines(body: str) -> bool:
    try:
        for line in body.split("\n"):
            json.loads(line.strip(" \t\r") or "0")
    except ValueError:
        return False
    return True


@schemathesis.check
def unknown_get_nothing(context: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """Where no case has credentials that hold: no success but of what is open, however wrong the path is."""
    if not UNKNOWN or response.status_code >= 400:
        return
    raw = case.operation.schema.raw_schema
    security = case.operation.definition.raw.get("security", raw["security"])
    assert security == [] or {} in security, f"{response.status_code} without credentials"


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    """The service `down` has no broker: 503 is what it has to answer, as described; nobody replies to a request."""
    services = {(case.path_parameters or {}).get("service"), *(uri.partition("::")[0] for uri in _uris(case))}
    down = "down" in services and response.status_code == 503
    no_reply = case.operation.path.endswith("/request") and response.status_code == 504
    return not (isinstance(failure, ServerError) and (down or no_reply))
