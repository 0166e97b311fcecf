"""What Schemathesis cannot know from the document; loaded by its own process, not by pytest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import schemathesis
from schemathesis.core.failures import ServerError

from app.wire.headers import is_reserved

Case: TypeAlias = "schemathesis.Case[Any]"

#: What an event stream consists of. OpenAPI 3.1 has no place for it: `itemSchema` came with 3.2.
EVENT = {
    "type": "object",
    "required": ["data"],
    "additionalProperties": False,
    "properties": {
        "event": {"enum": ["message", "binary", "gap", "status", "unavailable"]},
        "data": {"type": "string"},
        "id": {"type": "string", "pattern": "^[0-9A-Za-z_-]{6,16}[.][0-9]+$"},
        "retry": {"type": "integer", "minimum": 1000},
    },
}


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Have every event of a stream checked."""
    stream = raw_schema["paths"]["/mq/{service}/{type}/{name}/events"]["get"]["responses"]["200"]["content"]
    stream["text/event-stream"] = {"itemSchema": EVENT}


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: Case) -> bool:
    """Drop valid cases that a schema cannot tell from what is refused: a length in bytes, what not every
    broker takes, names that are reserved."""
    name = str((case.path_parameters or {}).get("name", ""))
    if len(name.encode(errors="replace")) > 255 or name != name.strip():
        return False
    headers: Mapping[str, Any] = case.headers or {}
    reply_to = headers.get("Mq-Reply-To")
    if reply_to is not None and reply_to != "demo::Queues::jobs":
        return False
    own = headers.get("Mq-Headers")
    return not isinstance(own, dict) or not any(map(is_reserved, own))


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Exception, case: Case, response: schemathesis.Response
) -> bool:
    """The service `down` has no broker: 503 is what it has to answer, as described; nobody replies to a request."""
    down = (case.path_parameters or {}).get("service") == "down" and response.status_code == 503
    no_reply = case.operation.path.endswith("/request") and response.status_code == 504
    return not (isinstance(failure, ServerError) and (down or no_reply))
