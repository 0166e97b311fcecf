"""The answers the HTTP side gives by itself, before or instead of the application."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.domain.errors import Code, Outcome
from app.wire import harmless, problem

Headers = Iterable[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

_TITLES = {
    Code.MALFORMED_REQUEST: "Malformed request",
    Code.METHOD_NOT_ALLOWED: "Method not allowed",
    Code.HEADERS_TOO_LARGE: "Headers too large",
    Code.OVERLOADED: "Overloaded",
    Code.INTERNAL: "Internal error",
}


class Refused(Exception):
    """A request that is not taken; `str()` is the detail for a person, without anything the client sent."""

    def __init__(
        self,
        status: int,
        code: Code,
        detail: str,
        *,
        retriable: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        reason: str = "malformed",
    ) -> None:
        super().__init__(detail)
        #: As what it is counted: the label of `mq_gateway_refused_connections_total`.
        self.reason = reason
        self.status = status
        self.code = code
        self.retriable = retriable
        #: What the status asks for besides the body: `Allow` with 405, `Retry-After` with 503.
        self.headers = headers


def malformed(detail: str) -> Refused:
    """400: the request cannot be read without guessing (RFC 9112 section 11.2 on what guessing leads to)."""
    return Refused(400, Code.MALFORMED_REQUEST, detail)


def too_large(detail: str) -> Refused:
    """431 (RFC 6585 section 5)."""
    return Refused(431, Code.HEADERS_TOO_LARGE, detail, reason="head_too_large")


def too_slow(*, head: bool) -> Refused:
    """400 and not 408: clients and proxies send a request anew at a 408 without being asked."""
    detail = "The request did not arrive in time."
    return Refused(400, Code.MALFORMED_REQUEST, detail, retriable=True, reason="slow_head" if head else "slow_body")


def full() -> Refused:
    """503: there are as many connections as there may be."""
    detail = "The gateway has as many connections as it has descriptors for."
    later = ((b"retry-after", b"5"),)
    return Refused(503, Code.OVERLOADED, detail, retriable=True, headers=later, reason="full")


def request_id(headers: Headers) -> str:
    """The client's X-Request-Id where it is one (lower-case header names), else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return secrets.token_hex(16)


def answer(
    refused: Refused, *, headers: Headers, instance: str, method: str = ""
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the response to a request with these `headers` (lower-case names).

    What is refused here never got to the application whole: a publish was not sent.
    """
    identity = request_id(headers)
    body = problem.render(
        code=refused.code,
        title=_TITLES[refused.code],
        status=refused.status,
        detail=str(refused),
        instance=instance,
        request_id=identity,
        retriable=refused.retriable,
        extra={"outcome": Outcome.NOT_SENT.value} if method == "POST" and "/mq/" in instance else {},
    )
    return [
        (b"content-type", problem.MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-request-id", identity.encode()),
        (b"connection", b"close"),
        *harmless.OF_DATA,
        *refused.headers,
    ], body


def message(refused: Refused, *, default_headers: Headers, headers: Headers, instance: str, method: str = "") -> bytes:
    """The whole response as it goes to the socket; `default_headers` are date and server."""
    own, body = answer(refused, headers=headers, instance=instance, method=method)
    lines = [name + b": " + value + b"\r\n" for name, value in (*default_headers, *own)]
    return b"".join((STATUS_LINE[refused.status], *lines, b"\r\n", body))
