"""One request and its response, between the application and the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from enum import Enum
from typing import Any

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from app.domain.errors import Code
from app.http1.refusal import Refused, answer
from app.http1.sockets import reset

logger = logging.getLogger("mq_gateway.server")


class Framing(Enum):
    """How the client finds the end of the response (RFC 9112 section 6.3)."""

    NO_BODY = "no_body"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


# Bound once: looking a member up in its Enum costs as much as ten plain attributes (CPython 3.11).
_NO_BODY, _LENGTH, _CHUNKED, _CLOSE = Framing


class Exchange(RequestResponseCycle):
    """The `receive` and `send` of ASGI for one request.

    `receive` is uvicorn's: bytes may come with `http.disconnect` behind them, and only a message with
    `more_body` false ends a body that is whole. `send` raises RuntimeError where the application breaks the
    protocol, and returns silently once the client has gone.
    """

    framing = _NO_BODY
    _left = 0  # bytes of the response's body that are still to come, with _LENGTH
    # Waits for the first part of the body, to go out in one piece with it (ASGI allows that): one call of the
    # kernel less for each response, and a stream counts as open at its first byte.
    _head = b""

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Runs the application; whatever it does, the client gets an answer or sees the connection end."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._cut_off()
            raise
        except Exception:
            logger.exception("the application failed at %s", self.scope["path"])
            await self._answer_500()
        else:
            if not (self.response_complete or self.disconnected or self.transport.is_closing()):
                logger.error("the application left %s without a whole answer", self.scope["path"])
                await self._answer_500()
        finally:
            self.on_response = _nothing

    async def _answer_500(self) -> None:
        if self.response_started and not self._head:
            self._cut_off()
            return
        self.response_started = False  # what waits was never said
        failure = Refused(500, Code.INTERNAL, "The gateway failed; its log says why.")
        headers, body = answer(failure, headers=self.scope["headers"], instance=self.scope["path"])
        await self.send({"type": "http.response.start", "status": failure.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _cut_off(self) -> None:
        """Ends the connection so that half a response cannot pass for a whole one."""
        if self.response_complete:
            return
        if self.response_started and self.framing is _CLOSE:
            reset(self.transport)  # an orderly close is how such a body ends
        else:
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's send; waits while the client is slower than the application."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if message["type"] != expected or self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}.")
        event: Any = message  # its type is checked above
        if self.response_started:
            self._send_body(event.get("body", b""), more=event.get("more_body", False))
        else:
            self._send_head(event["status"], event.get("headers", ()))

    def _send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.keep_alive = self.keep_alive and not self.waiting_for_100_continue
        self.waiting_for_100_continue = False
        length: int | None = None
        content = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                raise RuntimeError("Invalid header of a response.")
            name = name.lower()  # noqa: PLW2901
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif name == b"transfer-encoding":
                continue  # how the body is framed is decided here
            content += (name, b": ", value, b"\r\n")
        self._frame(status, length)
        if self.framing is _CHUNKED:
            content.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        content.append(b"\r\n")
        self.response_started = True
        self._head = b"".join(content)

    def _frame(self, status: int, length: int | None) -> None:
        if self.scope["method"] == "HEAD" or status in {204, 304}:
            self.framing = _NO_BODY
        elif length is not None:
            self.framing = _LENGTH
            self._left = length
        elif self.scope["http_version"] == "1.0":
            self.framing = _CLOSE  # HTTP/1.0 knows no chunks
        else:
            self.framing = _CHUNKED

    def _send_body(self, body: bytes, *, more: bool) -> None:
        head = self._head
        if self.framing is _CHUNKED:
            content = [head, b"%x\r\n" % len(body), body, b"\r\n"] if body else [head]
            if not more:
                content.append(b"0\r\n\r\n")
            # Not joined: what many streams send is one object in memory, also while slow clients keep it waiting.
            self.transport.writelines(content)
        elif self.framing is _NO_BODY:
            self.transport.write(head)
        else:
            self._count(len(body), more=more)
            self.transport.writelines([head, body])
        self._head = b""
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()

    def _count(self, size: int, *, more: bool) -> None:
        if self.framing is _CLOSE:
            return
        self._left -= size
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("The body does not have the Content-Length of the response.")


def _nothing() -> None:
    """Stands for the connection once the application is done: nobody waits any more."""
