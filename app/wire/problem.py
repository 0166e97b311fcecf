"""Errors as bytes: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MEDIA_TYPE = "application/problem+json"

# RFC 9457 section 3.1.1 wants a URI that names the kind of problem; it need not lead anywhere.
_TYPE = "urn:mq-gateway:problem:"


def render(
    *,
    code: str,
    title: str,
    status: int,
    detail: str,
    instance: str,
    request_id: str,
    retriable: bool,
    extra: Mapping[str, Any],
) -> bytes:
    """The body of an error response.

    `code` is one of the closed set of the contract, `instance` the path of the request (no query: it may
    carry a ticket), `extra` the members only some problems have (`outcome`, `errors`); the members named
    here win over one of the same name in `extra`. The bytes are ASCII, so text that is not valid Unicode
    cannot make an error answer fail.
    """
    problem: dict[str, Any] = {
        "type": _TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "retriable": retriable,
        "request_id": request_id,
    }
    return json.dumps(problem | {k: v for k, v in extra.items() if k not in problem}, separators=(",", ":")).encode()
