"""The life of one connection: what it waits for, how it ends. The parsing is in `app.http1.protocol`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.domain.pace import time_left
from app.http1.deadline import Deadline
from app.http1.refusal import Refused, full, message, too_slow
from app.http1.rules import DISCARD_BYTES, FAREWELL_SECONDS, LINGER_SECONDS, STALL_GRACE, Flow, GatewayState
from app.http1.sockets import reset
from app.http1.waiting import Waiting

logger = logging.getLogger("mq_gateway.server")

# Bound once: looking a member up in its Enum costs as much as ten plain attributes (CPython 3.11).
_HEAD, _BODY, _APP, _IDLE, _DISCARD, _LINGER = Waiting

# Of a target: what may hold a password or a ticket.
_AROUND_PATH = re.compile(rb"\A(?:[^/?]*://)?[^/?]*|\?.*", re.DOTALL)


class Connection(HttpToolsProtocol):
    """Deadlines, refusals and ends.

    uvicorn's `cycle` stays None: `_latest` is the request whose head came last, `_active` the one the
    application works on; between them is the pipeline.
    """

    server_state: GatewayState
    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: GatewayState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.rules = server_state.rules
        self._waiting = _HEAD
        self._deadline = Deadline(self.loop, self._expired)
        self._stall = Deadline(self.loop, self._stalled)
        self._unsent = 0  # bytes the client had not taken when a deadline for taking them was set
        self._discarded = 0
        self._came = 0.0  # bytes of a body since its deadline was set; infinite where that is to begin anew
        self._head_open = False
        self._deaf = False  # nothing this client sends is read as HTTP any more
        self._last = False  # the next answer is the last: the server is going down
        self._refused: Refused | None = None  # what to say after the answers that are due
        self._latest: RequestResponseCycle | None = None
        self._active: RequestResponseCycle | None = None
        self._gone: dict[object, Callable[[], None]] = {}
        self._extensions: dict[str, Any] = {}
        self._proxy = ""  # the address of the peer where it is a proxy whose word counts

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, unless the descriptors are needed for the brokers."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        peer = self.client[0] if self.client else ""
        self._proxy = peer if self.rules.proxies.trusts(peer) else ""
        self._extensions["mq_gateway"] = {
            "abort": self.abort,
            "write_buffer_size": transport.get_write_buffer_size,
            "write_through": self._write_through,
            "is_closing": transport.is_closing,
            "on_disconnect": self._on_disconnect,
            "peer": peer,
            "proxy": bool(self._proxy),
        }
        self._wait(_HEAD)
        if len(self.connections) > self.rules.connections:
            self._refuse(full())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells every request of this connection, and the server when it was the last one."""
        self._deadline.release()
        self._stall.release()
        self._deaf = True
        self.server_state.large_heads.discard(self)
        for cycle, _ in self.pipeline:
            _disconnect(cycle)
        self.pipeline.clear()
        if self._active is not None:
            _disconnect(self._active)
        super().connection_lost(exc)
        self._tell_gone()
        if not self.connections:
            self.server_state.emptied.set()

    def eof_received(self) -> None:
        """The client sends no more: the connection ends, with what is unsent if the client takes it."""
        self._wait(_LINGER)

    def shutdown(self) -> None:
        """Ends the connection after the request it is in; in none, after that which may be on its way just now.

        A client that keeps its connection busy would otherwise send into the close, and never learn what became of
        its request.
        """
        self._last = True
        if self._latest is not None:
            self._latest.keep_alive = False
        if self._next() is _DISCARD:
            self._leave(linger=True)
        elif self._next() is _IDLE or (self._latest is None and not self._head_open):
            self._deadline.start(FAREWELL_SECONDS)

    def abort(self) -> None:
        """Ends the connection at once and frees its socket: nothing unsent is kept, the client sees a reset."""
        reset(self.transport)

    # -- for the application --

    def _write_through(self) -> None:
        if not self.transport.is_closing():  # the client may have gone before its request was looked at
            self.transport.set_write_buffer_limits(high=0)

    def _on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        key = object()
        if self._active is None or self._active.disconnected:
            self.loop.call_soon(callback)
        else:
            self._gone[key] = callback

        def forget() -> None:
            self._gone.pop(key, None)

        return forget

    def _tell_gone(self) -> None:
        callbacks = list(self._gone.values())
        self._gone.clear()
        for callback in callbacks:
            self.loop.call_soon(callback)

    # -- deadlines --

    def _wait(self, what: Waiting) -> None:
        self._waiting = what
        if what is _APP:
            self._deadline.lift()
        elif what is _IDLE or what is _BODY:
            self._deadline.start(self.rules.idle_timeout)
        elif what is _LINGER:
            self._stall.lift()  # from here on this deadline asks for progress
            self._unsent = self.transport.get_write_buffer_size()
            self._deadline.start(self.rules.write_timeout if self._unsent else LINGER_SECONDS)
        else:
            self._deadline.start(self.rules.header_timeout)

    def _wait_on(self) -> None:
        """Waits for what comes next. A deadline for the whole of something is not renewed by a part of it."""
        what = self._next()
        if what is not self._waiting:
            self._wait(what)
        elif what is _BODY:
            self._deadline.start(time_left(self._deadline.left(), self._came, self.rules.idle_timeout))
        self._came = 0.0

    def _next(self) -> Waiting:
        if self._head_open:
            return _HEAD
        if self._latest is None:
            return self._waiting
        if self._latest.more_body:
            return _DISCARD if self._latest.response_complete else _BODY
        return _IDLE if self._latest.response_complete else _APP

    def _expired(self) -> None:
        if self._waiting is _BODY and self.flow.read_paused:
            self._wait(_BODY)  # it is the application that does not read
        elif self._waiting is _LINGER and self._progressed():
            self._wait(_LINGER)
        elif self._waiting in {_LINGER, _DISCARD}:
            self.abort()
        elif self._waiting is _BODY or self._head_open:
            self._refuse(too_slow(head=self._waiting is not _BODY))
        else:
            self._close()

    def _progressed(self) -> bool:
        return self.transport.get_write_buffer_size() < self._unsent

    def pause_writing(self) -> None:
        """The client is slower than the application: from now on it has to make progress."""
        super().pause_writing()
        self._watch_progress()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stall.lift()
        super().resume_writing()

    def _watch_progress(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._stall.start(self.rules.write_timeout + STALL_GRACE)

    def _stalled(self) -> None:
        if self._progressed():
            self._watch_progress()
            return
        logger.info("a client took nothing for %g s and is cut off", self.rules.write_timeout)
        self.abort()

    # -- refusals and ends --

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > DISCARD_BYTES:
            self.abort()

    def _refuse(self, refused: Refused) -> None:
        """Reads no more, answers what is due, says why, ends the connection."""
        self.server_state.refused(refused.reason)
        self._deaf = True
        if self._latest is not None and self._latest.more_body and not self._break_off(self._latest):
            self._leave(linger=True)
        elif self._active is not None:
            self._refused = refused
            self._wait(_APP)
        else:
            self._say(refused)

    def _break_off(self, latest: RequestResponseCycle) -> bool:
        """Ends the request whose body is broken; False where its answer has begun, so that none can follow."""
        _disconnect(latest)
        if latest is self._active:
            self._active = None
            self._tell_gone()
        elif self.pipeline:
            self.pipeline.popleft()  # where the latest is
        return not latest.response_started

    def _say(self, refused: Refused) -> None:
        path, headers, method = self._identity()
        self.transport.write(
            message(
                refused,
                default_headers=self.server_state.default_headers,
                headers=headers,
                instance=path,
                method=method,
            )
        )
        self._leave(linger=True)

    def _identity(self) -> tuple[str, list[tuple[bytes, bytes]], str]:
        """Path, headers and method, as far as they came, of the request that is refused."""
        if self._head_open:
            path = _AROUND_PATH.sub(b"", self.url)[:255].decode("latin-1")
            return path, self.headers, self.parser.get_method().decode("latin-1") if self.url else ""
        if self._latest is None:
            return "", [], ""
        scope = self._latest.scope
        return scope["path"], list(scope["headers"]), scope["method"]

    def _leave(self, *, linger: bool) -> None:
        """Ends the connection; `linger` where the client still sends, or a reset would cost it the answer."""
        self._deaf = True
        if linger and not self.transport.is_closing() and self.transport.can_write_eof():
            self.flow.held = False
            self.flow.resume_reading()
            self.transport.write_eof()
            self._wait(_LINGER)
        else:
            self._close()

    def _close(self) -> None:
        self._deaf = True
        self.transport.close()
        self._wait(_LINGER)


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = not cycle.response_complete
    cycle.message_event.set()
