"""HTTP/1.1 read from a connection, strictly, and given to the application."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.http1.connection import Connection
from app.http1.exchange import Exchange
from app.http1.head import Target, examine, read_target, without_upgrade
from app.http1.refusal import Refused, malformed, too_large
from app.http1.rules import HEAD_BYTES, LARGE_HEADS, SLICE_BYTES, GatewayState

logger = logging.getLogger("mq_gateway.server")


class GatewayProtocol(Connection):
    """What differs from uvicorn's protocol:

    - every wait on the client has a deadline, every buffer a bound (`app.http1.rules`);
    - the parser's leniencies are off, and `app.http1.head` refuses what the parser takes all the same;
    - a wish for another protocol (Upgrade) is ignored, and the body stays where it belongs;
    - a refusal is problem+json, comes after the answers that are due before it, and reaches the client;
    - trailers are dropped instead of becoming headers of a request that is already running;
    - a request behind the running one does not hide from it that the client has gone.

    `scope["extensions"]["mq_gateway"]` holds for the application:
    `abort()` ends the connection at once, whatever is still unsent; `write_buffer_size()` is what the
    client has not taken, in bytes; after `write_through()` a send waits until that is nothing; `is_closing()`
    is true when writing makes no sense any more; `on_disconnect(callback)` calls `callback()` once on the loop
    should the client go before the response is complete, and returns a function that forgets the callback;
    `peer` is the address at the other end of the connection, and `proxy` whether that is one of
    `server.trusted_proxies`, whose headers about the client may be believed. `scope["client"]` is then who it says.
    """

    def __init__(
        self,
        config: Config,
        server_state: GatewayState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's lenient_data_after_close
        self._unframed = 0  # bytes received that were neither a whole head nor a body
        self._unparsed = b""  # waits until no request waits for the answer to another one
        self._objection: Refused | None = None  # what a callback of the parser has against the head
        self._held = False  # this head wants another protocol: it is parsed again without that wish

    def data_received(self, data: bytes) -> None:
        """Parses what came; after a refusal it is only counted."""
        if self._deaf:
            self._discard(len(data))
            return
        if self._unparsed:  # what the transport had read before reading was paused
            self._unparsed += data
            return
        try:
            self._feed(data)
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            self._refuse(self._objection or _complaint(error))
        else:
            # Trailers, chunk extensions and empty lines have no reason to be as long as a head may be.
            limit = self.rules.head_bytes if self._head_open else HEAD_BYTES
            if self._unframed > limit or not self._may_be_large():
                self._refuse(_unframed(limit))
            else:
                self._wait_on()

    def _may_be_large(self) -> bool:
        """Whether this connection may gather what it does: only a few may gather a head above HEAD_BYTES."""
        large = self.server_state.large_heads
        if self._unframed <= HEAD_BYTES:
            large.discard(self)
        elif self in large or len(large) < LARGE_HEADS:
            large.add(self)
        else:
            return False
        return True

    def _feed(self, data: bytes) -> None:
        view = memoryview(data) if len(data) > SLICE_BYTES else data
        at = 0
        while at < len(data):
            if self.pipeline:
                self._unparsed = data[at:]
                return
            piece = view[at : at + SLICE_BYTES]
            self._unframed += len(piece)
            try:
                self.parser.feed_data(piece)
                at += len(piece)
            except httptools.HttpParserUpgrade as upgrade:
                at += upgrade.args[0]
            if self._held:
                self._parse_again()

    def _parse_again(self) -> None:
        """Gives the held head to a fresh parser, without the wish that made the old one skip the body."""
        self._held = False
        head = without_upgrade(self.parser.get_http_version(), self.parser.get_method(), self.url, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(head)

    # -- callbacks of the parser --

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._head_open = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head; after the head a trailer, which goes nowhere."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole: the request is given to the application, or queued behind the running one."""
        if self.parser.should_upgrade():
            self._held = True
            return
        version = self.parser.get_http_version()
        try:
            target = read_target(self.url)
            expects = examine(version, target, self.headers, self.rules)
        except Refused as refused:
            self._objection = refused  # the parser may lose it: it only keeps one context of an exception
            raise
        self._describe(version, target)
        self._head_open = False
        self._unframed = self._discarded = 0
        self.headers = []
        self.url = b""
        self._take(self._exchange(expects, keep_alive=version != "1.0" and self.parser.should_keep_alive()))

    def _describe(self, version: str, target: Target) -> None:
        scope = self.scope
        root = self.root_path
        if root and (target.path == root or target.path.startswith(root + "/")):
            root = ""  # the proxy in front has left the prefix where it was
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = root + target.path
        scope["raw_path"] = root.encode("ascii") + target.raw_path
        scope["query_string"] = target.query
        if self._proxy:
            self._look_through(scope)
        if target.authority is not None:
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.append((b"host", target.authority))

    def _look_through(self, scope: HTTPScope) -> None:
        address, scheme = self.rules.proxies.look_through(self._proxy, self.headers)
        scope["client"] = (address, 0)
        if scheme is not None:
            scope["scheme"] = scheme

    def _exchange(self, expects: bool, *, keep_alive: bool) -> Exchange:
        return Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            keep_alive=keep_alive and not self._last,
            on_response=self.on_response_complete,
        )

    def _take(self, exchange: Exchange) -> None:
        self._latest = exchange
        if self._active is None:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.held = True
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Bytes of a body; those that come after the answer are thrown away."""
        self._unframed = 0
        latest = self._latest
        if latest is None or latest.response_complete:
            self._discard(len(body))
            return
        self._came += len(body)
        latest.body += body
        if len(latest.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        latest.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._held or self._latest is None:
            return
        self._unframed = 0
        self._latest.more_body = False
        self._latest.message_event.set()
        self._forget_head()

    def on_response_complete(self) -> None:
        """The answer is out: the next request, the refusal that had to wait, or the end."""
        self.server_state.total_requests += 1
        done, self._active = self._active, None
        self._gone.clear()
        self._forget_head()
        if done is None or self.transport.is_closing():
            return
        if not done.keep_alive:
            self._leave(linger=self._deaf or done.more_body)
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refused is not None:
            self._say(self._refused)
            return
        if not self.pipeline:
            self._read_on()

    def _forget_head(self) -> None:
        """Between two requests only what a refusal may still name is kept of the first: heads may be large."""
        latest = self._latest
        if latest is None or latest.more_body or not latest.response_complete:
            return
        scope = latest.scope
        names = [pair for pair in scope["headers"] if pair[0] == b"x-request-id"]
        latest.scope = cast("HTTPScope", {**scope, "headers": names, "raw_path": b"", "query_string": b""})
        if self.scope is scope:  # else it is that of a head that has begun
            self.scope = latest.scope

    def _read_on(self) -> None:
        self.flow.held = False
        self._came = math.inf  # nothing of a body was read while it waited: that is not held against it
        data, self._unparsed = self._unparsed, b""
        if data:
            self.data_received(data)
        else:
            self._wait_on()
        self.flow.resume_reading()


def _unframed(limit: int) -> Refused:
    return too_large(f"More than {limit} bytes without a whole head or a body.")


def _complaint(error: httptools.HttpParserError) -> Refused:
    """What the parser says; it names no bytes of the client."""
    if isinstance(error, httptools.HttpParserCallbackError):
        logger.error("a callback of the parser failed", exc_info=error)
    return malformed(f"This is no HTTP request: {error}.")
