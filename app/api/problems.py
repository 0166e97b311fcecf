"""The only table from errors to HTTP: status, title and the headers that belong to a status.

Bodies are problem details (RFC 9457); every one carries `code`, `retriable` and `request_id`, a refused
publish also its `outcome`, so that a program decides by members and a person reads `detail`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from app.api.answer import Answer, Header
from app.domain.errors import Code, GatewayError, InvalidCredentials, MethodNotAllowed
from app.wire import problem

MEDIA_TYPE = b"application/problem+json"

#: Status and title of every code.
TABLE: dict[Code, tuple[int, str]] = {
    Code.INVALID_NAME: (400, "Invalid destination name"),
    Code.INVALID_HEADER: (400, "Invalid header"),
    Code.INVALID_PARAMETER: (400, "Invalid parameter"),
    Code.INVALID_JSON: (400, "Invalid JSON"),
    Code.MALFORMED_REQUEST: (400, "Malformed request"),
    Code.HTTPS_REQUIRED: (400, "HTTPS required"),
    Code.UNAUTHENTICATED: (401, "Not authenticated"),
    Code.FORBIDDEN: (403, "Forbidden"),
    Code.UNKNOWN_SERVICE: (404, "Unknown mqService"),
    Code.UNKNOWN_DESTINATION: (404, "Unknown destination"),
    Code.NOT_FOUND: (404, "Not found"),
    Code.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    Code.NOT_ACCEPTABLE: (406, "Not acceptable"),
    Code.IDEMPOTENCY_IN_PROGRESS: (409, "Already on its way"),
    Code.BODY_TOO_LARGE: (413, "Body too large"),
    Code.UNSUPPORTED_ENCODING: (415, "Unsupported content encoding"),
    Code.SCHEMA_VIOLATION: (422, "Body does not fit the schema"),
    Code.IDEMPOTENCY_MISMATCH: (422, "Idempotency-Key of another message"),
    Code.NOT_SUPPORTED_BY_BROKER: (422, "Not supported by this broker"),
    Code.RATE_LIMITED: (429, "Rate limited"),
    Code.TOO_MANY_STREAMS: (429, "Too many streams"),
    Code.HEADERS_TOO_LARGE: (431, "Headers too large"),
    Code.INTERNAL: (500, "Internal error"),
    Code.BROKER_REJECTED: (502, "Rejected by the broker"),
    Code.BROKER_UNAVAILABLE: (503, "Broker unavailable"),
    Code.OVERLOADED: (503, "Overloaded"),
    Code.KEYS_UNAVAILABLE: (503, "No keys to verify with"),
    Code.DESTINATION_QUARANTINED: (503, "Destination quarantined"),
    Code.DRAINING: (503, "Shutting down"),
    Code.CONFIRM_TIMEOUT: (504, "No confirmation in time"),
    Code.CONNECTION_LOST: (504, "Connection lost before the confirmation"),
    Code.NO_REPLY: (504, "No reply in time"),
}

#: Seconds for `Retry-After` where the error names none (RFC 9110 section 10.2.3: whole seconds).
DEFAULT_RETRY_AFTER = 2


def status_of(error: GatewayError) -> int:
    """The HTTP status of an error."""
    return TABLE[error.code][0]


def retry_after_seconds(error: GatewayError) -> int:
    """Whole seconds for `Retry-After`, at least one, rounded up."""
    return max(1, math.ceil(error.retry_after)) if error.retry_after is not None else DEFAULT_RETRY_AFTER


def answer_for(
    error: GatewayError,
    *,
    instance: str,
    request_id: str,
    outcome: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Answer:
    """The whole answer for an error; a refused publish has an `outcome`, and a batch `more` members."""
    status, title = TABLE[error.code]
    body = problem.render(
        code=error.code.value,
        title=title,
        status=status,
        detail=str(error),
        instance=instance,
        request_id=request_id,
        retriable=error.retriable,
        extra={**(more or {}), **_extra(error, outcome)},
    )
    return Answer(status=status, content_type=MEDIA_TYPE, body=body, headers=_headers(error, status))


def _extra(error: GatewayError, outcome: str | None) -> dict[str, Any]:
    extra: dict[str, Any] = {} if outcome is None else {"outcome": outcome}
    if error.errors:
        extra["errors"] = [{"where": one.where, "message": one.message} for one in error.errors]
    return extra


def _headers(error: GatewayError, status: int) -> tuple[Header, ...]:
    headers: list[Header] = [(b"cache-control", b"no-store")]
    if status in (409, 429, 503):
        headers.append((b"retry-after", b"%d" % retry_after_seconds(error)))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if status == 401:
        invalid = isinstance(error, InvalidCredentials)
        headers.append((b"www-authenticate", b'Bearer error="invalid_token"' if invalid else b"Bearer"))
    return tuple(headers)
