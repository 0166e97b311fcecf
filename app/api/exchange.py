"""One HTTP request and its answer, on raw ASGI: the request's id, its headers, one way to answer."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.types import Receive, Scope, Send

from app.api.answer import Answer, Header
from app.api.paths import raw_path
from app.api.problems import answer_for
from app.api.request_headers import RequestHeaders
from app.auth.caller import NOBODY
from app.auth.sealed import Sealed
from app.domain.errors import GatewayError
from app.telemetry.access import Access
from app.wire import harmless

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

#: A refused body up to this size is left to the server, which reads and drops it; the connection lives on.
SMALL_REMAINDER = 64 << 10
# A larger one ends the connection: the server answers, reads on for a moment so that the answer is not lost in
# a reset, and closes (RFC 9112 section 9.6).
_CLOSE: Header = (b"connection", b"close")

# An id of ours is a random part for the process and a number: cheaper than a UUID each, and still unique.
_PROCESS = secrets.token_hex(6)
_COUNTER = itertools.count(1)


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


def request_id_of(headers: RequestHeaders) -> bytes:
    """The client's X-Request-Id where it is harmless in a header and a log line, else a new one."""
    given = headers.first(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}-{next(_COUNTER):x}".encode()


class Exchange:
    """The request (`scope`, `headers`, `receive`) and what is said back; `access` becomes the log line."""

    __slots__ = (
        "_send",
        "access",
        "body_read",
        "caller",
        "complete",
        "cors",
        "headers",
        "publish",
        "receive",
        "request_id",
        "scope",
        "ticket",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.headers = RequestHeaders(scope["headers"])
        self.request_id = request_id_of(self.headers)
        #: The CORS headers of this answer, set by the guard before anything is said.
        self.cors: tuple[Header, ...] = ()
        #: Whose request it is, as soon as that is known.
        self.caller = NOBODY
        #: The ticket it was recognised by.
        self.ticket: Sealed | None = None
        #: Whether problems name an outcome.
        self.publish = False
        self.body_read = False
        #: Whether the whole answer is out.
        self.complete = False
        self.access = Access(
            request_id=self.request_id.decode(),
            method=scope["method"],
            path=raw_path(scope),
            started=time.perf_counter(),
        )

    @property
    def method(self) -> str:
        """GET, POST, …"""
        return self.access.method

    @property
    def address(self) -> str:
        """Where the client is, as far as trusted proxies tell; empty where the server does not say."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def is_https(self) -> bool:
        """Whether the client speaks TLS, to us or to a proxy we trust."""
        return bool(self.scope.get("scheme") == "https")

    @property
    def seam(self) -> Mapping[str, Any]:
        """What our server adds to ASGI (see GatewayProtocol); empty on any other server."""
        found: Mapping[str, Any] = self.scope.get("extensions", {}).get("mq_gateway", {})
        return found

    @property
    def is_watched(self) -> bool:
        """Whether the server itself ends a request whose body does not come."""
        return bool(self.seam)

    @property
    def answered(self) -> bool:
        """Whether an answer has begun."""
        return self.access.status != 0

    def forget_head(self) -> None:
        """What lasts keeps of its head, which may be large, only what a refusal of the server still names.

        In place, for the server has it too.
        """
        self.headers.forget(but=b"x-request-id")
        self.scope["headers"][:] = self.headers.pairs
        self.scope["query_string"] = b""

    async def start(
        self, status: int, headers: Sequence[Header], harmless: Sequence[Header] = harmless.OF_DATA
    ) -> None:
        """Begin the answer."""
        self.access.status = status
        every = [*headers, (b"x-request-id", self.request_id), *harmless, *self.cors]
        await self._send({"type": "http.response.start", "status": status, "headers": every})

    async def send(self, body: bytes, *, more: bool) -> None:
        """A part of the body; nothing of it for HEAD (RFC 9110 section 9.3.2)."""
        if self.method == "HEAD":
            body = b""
        self.complete = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, answer: Answer) -> None:
        """The whole answer at once."""
        length = (b"content-length", b"%d" % len(answer.body))
        head = ((b"content-type", answer.content_type), length, *answer.headers)
        await self.start(answer.status, head, answer.harmless)
        await self.send(answer.body, more=False)

    async def refuse(self, error: GatewayError, more: Mapping[str, Any] | None = None) -> None:
        """Answer with the problem, and `more` members of its own; nothing where an answer has already begun."""
        if self.answered:
            return
        self.access.code = error.code.value
        answer = answer_for(
            error,
            instance=self.access.path,
            request_id=self.access.request_id,
            outcome=(self.access.outcome or error.outcome.value) if self.publish else None,
            more=more,
        )
        if self._large_remainder():
            answer = replace(answer, headers=(*answer.headers, _CLOSE))
        await self.answer(answer)

    def _large_remainder(self) -> bool:
        """Whether a body is on its way that is too large, or of unknown length, to be read for nothing."""
        if self.body_read:
            return False
        length = self.headers.first(b"content-length")
        if length is None:
            return b"transfer-encoding" in self.headers
        return not length.isdigit() or int(length) > SMALL_REMAINDER
