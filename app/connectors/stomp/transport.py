"""The socket of one connection, owned by the event loop: whole frames in, whole frames out, deadlines on both.

Takes the place of stomp.py's threads and sockets (docs/adr/0001-own-transport.md). stomp.py's Protocol12 writes
to it through `transmit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import cast

from stomp.utils import Frame, clean_headers

from app.connectors.stomp.addresses import Address
from app.connectors.stomp.frames import HEARTBEAT, FrameReader, encode
from app.domain.link import LinkFailed, LinkFault

#: Seconds a broker may take nothing of what waits for it before the connection is given up.
WRITE_DEADLINE = 10.0
_HIGH_WATER = 1 << 20
# Linux only.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)

_frame_log = logging.getLogger("mq_gateway.stomp.frames")


class StompTransport(asyncio.Protocol):
    """One connection. `on_frame` gets every frame, `on_closed` exactly one call with the reason of the end."""

    def __init__(self, on_frame: Callable[[Frame], None], on_closed: Callable[[LinkFailed], None]) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._socket: asyncio.Transport | None = None
        self._raw: socket.socket | None = None
        self._pending: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._write_timer: asyncio.TimerHandle | None = None
        self._queued = self._handed = self._taken = 0
        self._taken_at = 0.0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._read_at = self._written_at = self._loop.time()
        self._fault: LinkFailed | None = None
        self._log_frames = "DIRAC_DEBUG_STOMP" in os.environ
        #: What Protocol12 reads when it writes CONNECT.
        self.vhost = "/"
        self.current_host_and_port = ("", 0)

    @property
    def encryption(self) -> str:
        """The TLS version and cipher in use, for a person; `plain TCP` without."""
        tls = None if self._socket is None else self._socket.get_extra_info("ssl_object")
        return "plain TCP" if tls is None else f"{tls.version()} {tls.cipher()[0]}"

    @property
    def buffered(self) -> int:
        """Bytes handed over that the kernel has not taken yet."""
        return self._queued if self._socket is None else self._queued + self._socket.get_write_buffer_size()

    async def open(self, address: Address, context: ssl.SSLContext | None, server_name: str | None) -> None:
        """Connect; the caller sets the deadline. Raises OSError or ssl.SSLError."""
        name = (server_name or address.name) if context is not None else None
        await self._loop.create_connection(lambda: self, address.ip, address.port, ssl=context, server_hostname=name)

    # What stomp.py's protocol layer calls.

    def set_listener(self, name: str, listener: object) -> None:
        """Protocol12 registers itself for heart-beats; those are ours (heartbeats (0, 0) there)."""

    def transmit(self, frame: Frame) -> None:
        """Queue a frame; everything queued in one turn of the loop goes out in one write."""
        self.write(encode(frame))
        if self._log_frames:
            _frame_log.info("> %s %s", frame.cmd, clean_headers(frame.headers))

    def write(self, data: bytes) -> None:
        """Queue bytes; what a closed connection is given is dropped, its owner is told by `on_closed`."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._queued += len(data)

    @property
    def is_writable(self) -> bool:
        """Whether the kernel takes what it is given, and no more than it should get at once is queued."""
        return self._writable.is_set() and self._queued < _HIGH_WATER

    async def writable(self) -> None:
        """Returns when the kernel takes what is queued; the caller sets the deadline."""
        if self._pending:
            await asyncio.sleep(0)  # the flush of this turn of the loop
        await self._writable.wait()

    def _flush(self) -> None:
        pending, self._pending, self._queued = self._pending, [], 0
        if self._socket is not None and not self._socket.is_closing():
            self._written_at = self._loop.time()
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            self._handed += len(data)
            self._socket.write(data)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)
        self._socket.set_write_buffer_limits(high=_HIGH_WATER)
        self._raw = transport.get_extra_info("socket")
        if self._pending:
            self._flush()

    def data_received(self, data: bytes) -> None:
        self._read_at = self._loop.time()
        self._acknowledge()
        try:
            for frame in self._reader.feed(data):
                if self._log_frames:
                    _frame_log.info("< %s %s", frame.cmd, frame.headers)
                self._on_frame(frame)
        except LinkFailed as fault:
            self.abort(fault)

    def _acknowledge(self) -> None:
        """Tell the broker's TCP now that its bytes are here, instead of the usual 40 ms later.

        ActiveMQ leaves Nagle's algorithm on: what it says next would wait for this (RFC 1122, 4.2.3.2 and 4.2.3.4).
        The kernel forgets the wish with the next thing we send (tcp(7), TCP_QUICKACK).
        """
        if _QUICK_ACK is not None and self._raw is not None:
            with contextlib.suppress(OSError):  # The last bytes of a connection that is gone.
                self._raw.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def eof_received(self) -> None:
        """The broker says no more. asyncio would first write what is left, and the link seem up until then."""
        self.abort(LinkFailed(LinkFault.CLOSED_BY_BROKER, _closing_words(None)))

    def pause_writing(self) -> None:
        self._writable.clear()
        self._taken_at = self._loop.time()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """Only a standstill is a fault: a broker that reads slowly may have a backlog for as long as it likes."""
        taken = self._handed - self.buffered + self._queued
        now = self._loop.time()
        if taken > self._taken:
            self._taken, self._taken_at = taken, now
        if now - self._taken_at >= WRITE_DEADLINE:
            self.abort(LinkFailed(LinkFault.WRITE_TIMEOUT, f"the broker read nothing for {WRITE_DEADLINE:g} s"))
            return
        self._write_timer = self._loop.call_later(WRITE_DEADLINE / 10, self._watch_writing)

    def resume_writing(self) -> None:
        self._writable.set()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self._writable.set()
        fault = self._fault or LinkFailed(LinkFault.CLOSED_BY_BROKER, _closing_words(exc))
        self._on_closed(fault)

    def _stop_timers(self) -> None:
        for timer in (self._write_timer, self._beat_timer):
            if timer is not None:
                timer.cancel()

    def abort(self, fault: LinkFailed) -> None:
        """End the connection at once, for this reason; the socket is freed even if the peer reads nothing."""
        self._fault = self._fault or fault
        if self._socket is not None:
            self._socket.abort()

    # Heart-beats, in both directions.

    def start_heartbeats(self, send_every: float, expect_every: float, intervals: float) -> None:
        """Seconds; 0 switches a direction off. A peer silent for so many intervals is given up.

        We send at half the agreed interval: ActiveMQ grants no grace.
        """
        steps = [every / 2 for every in (send_every, expect_every) if every > 0]
        if steps:
            self._beat(min(steps), send_every, intervals * expect_every)

    def _beat(self, step: float, send_every: float, patience: float) -> None:
        now = self._loop.time()
        if 0 < patience < now - self._read_at:
            self.abort(LinkFailed(LinkFault.HEARTBEAT, f"no sign of the broker for {now - self._read_at:.1f} s"))
            return
        if send_every > 0 and now - self._written_at >= step * 0.99 and self._writable.is_set():
            self.write(HEARTBEAT)
        self._beat_timer = self._loop.call_later(step, self._beat, step, send_every, patience)


def _closing_words(exc: Exception | None) -> str:
    return "the broker closed the connection" if exc is None else f"the connection broke: {exc}"
