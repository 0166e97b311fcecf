"""TLS between a TCP connection and HTTP: for the one a protocol, for the other a transport that behaves as TCP does.

The loops' own TLS transports do not: they do not count what TCP still has to send, so that `write_through` and the
watch over stalled readers would not see it, they cannot end one direction only, and call the protocol after the
handshake only, so that nobody could bound how many are under way. The cryptography is OpenSSL's, by way of `ssl`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from app.http1.backlog import RECORD, Backlog, Buffer
from app.http1.deadline import Deadline
from app.http1.refusal import malformed, message
from app.http1.rules import EMPTY_BYTES, HANDSHAKES, LINGER_SECONDS, SPARE_HANDSHAKES, UNASKED_BYTES, GatewayState
from app.http1.sockets import reset


class End(Enum):
    """What happens when all is out."""

    NONE = "none"
    EOF = "eof"  # our side ends, and the client's is listened to
    CLOSE = "close"


class TlsLayer(asyncio.Protocol, asyncio.Transport):
    """One connection. `made` makes the protocol above, once the handshake is done."""

    _tcp: asyncio.Transport

    def __init__(self, context: ssl.SSLContext, state: GatewayState, made: Callable[[], asyncio.Protocol]) -> None:
        super().__init__()
        self._context = context
        self._state = state
        self._made = made
        self._above: asyncio.Protocol | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = None  # made when the client says something
        self._deadline = Deadline(asyncio.get_running_loop(), self._late)
        self._backlog = Backlog()
        self._paused = False  # TCP has enough to send
        self._told = False  # the protocol above knows
        self._reading, self._end = True, End.NONE
        self._silent = False  # our side has said its last; what comes is not decrypted any more
        self._unasked = self._empty = 0  # bytes: said without being asked, of records that brought nothing

    # -- the protocol of TCP --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a handshake, unless there are too many connections; the oldest handshake gives way to a new one."""
        self._tcp = transport
        state = self._state
        state.handshakes[self] = self._give_way
        self._deadline.start(state.rules.header_timeout)
        room = max(state.rules.connections + SPARE_HANDSHAKES - len(state.connections), 0)
        while len(state.handshakes) > min(HANDSHAKES, room):
            next(iter(state.handshakes.values()))()

    def data_received(self, data: bytes) -> None:
        """Records, or pieces of them."""
        if self._silent:
            if self._above is not None and self._end is End.EOF:
                self._above.data_received(data)  # to be counted: OpenSSL takes no data after its close_notify
        elif self._end is not End.CLOSE:
            # In pieces: OpenSSL works off all records at once that bring nothing, such as KeyUpdates.
            for at in range(0, len(data), RECORD):
                self._take(data[at : at + RECORD])

    def _take(self, piece: bytes) -> None:
        self._incoming.write(piece)
        if self._above is None:
            self._shake_hands()
            return
        self._empty += len(piece)
        self._pump()
        if self._empty > EMPTY_BYTES and not self._incoming.pending:
            reset(self)

    def eof_received(self) -> bool:
        """The client sends no more; what is unsent is sent, as far as it takes it."""
        if self._above is None:
            if self._ssl is not None and not self._silent:
                self._state.refused("handshake")
            return False
        self._peer_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._end, self._silent = End.CLOSE, True
        self._deadline.release()
        self._state.handshakes.pop(self, None)
        self._backlog.clear()
        above, self._above = self._above, None
        if above is not None:
            above.connection_lost(exc)

    def pause_writing(self) -> None:
        """TCP has more than it should keep."""
        self._paused = True
        if not self._told and self._above is not None:
            self._told = True
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """TCP wants more: first what is here."""
        self._paused = False
        self._unasked = 0
        self._work_off()
        if self._told and not self._paused and self._above is not None:
            self._told = False
            self._above.resume_writing()

    # -- the handshake --

    def _shake_hands(self) -> None:
        if self._ssl is None:
            self._ssl = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except OSError as error:  # SSLError is one
            self._fail(getattr(error, "reason", None))
        else:
            self._flush()
            self._deadline.release()
            del self._state.handshakes[self]
            self._above = self._made()
            self._above.connection_made(self)
            self._pump()

    def _fail(self, reason: str | None) -> None:
        self._state.refused("handshake")
        self._end, self._silent = End.CLOSE, True
        self._flush()  # the alert
        if self._tcp.is_closing():
            return
        if reason == "HTTP_REQUEST":
            refused = malformed("This address speaks HTTPS: the URL begins with https://.")
            default = self._state.default_headers
            self._tcp.write(message(refused, default_headers=default, headers=(), instance=""))
        self._tcp.write_eof()
        self._deadline.start(LINGER_SECONDS)  # what else comes is dropped, so that no reset costs the client the answer

    def _late(self) -> None:
        if not self._silent:
            self._state.refused("handshake")
        reset(self)

    def _give_way(self) -> None:
        del self._state.handshakes[self]
        self._state.refused("full")
        reset(self)

    # -- in --

    def _pump(self) -> None:
        """Gives what can be decrypted to the protocol above, as long as it wants it."""
        tls = self._ssl
        try:
            while tls is not None and self._above is not None and self._reading and not self._silent:
                if self._end is End.CLOSE or not (self._incoming.pending or tls.pending()):
                    break  # asking first is cheaper than the exception
                data = tls.read(RECORD)
                if not data:
                    raise ssl.SSLZeroReturnError  # noqa: TRY301 - two ways to say close_notify
                self._empty = 0
                self._above.data_received(data)
        except ssl.SSLWantReadError:
            pass  # the rest of a record
        except ssl.SSLZeroReturnError:
            self._peer_ended()
        except ssl.SSLError:
            self._flush()
            reset(self)
            return
        self._flush()

    def _peer_ended(self) -> None:
        if self._above is not None:
            self._above.eof_received()
        self.close()

    # -- out --

    def _work_off(self) -> None:
        """Encrypts and sends until TCP has enough, and then what `end` says."""
        while self._backlog and not self._paused:
            self._encrypt(self._backlog.take())
        if not self._backlog and self._end is not End.NONE:
            self._finish()

    def _encrypt(self, piece: Buffer) -> None:
        view = memoryview(piece)
        try:
            while view and self._ssl is not None:
                view = view[self._ssl.write(view) :]
        except ssl.SSLError:
            reset(self)
        else:
            self._flush(asked=True)

    def _flush(self, *, asked: bool = False) -> None:
        """Hands to TCP what OpenSSL has to say; also answers to a client, which it may ask for without reading any."""
        data = self._outgoing.read()
        if not data or self._tcp.is_closing():
            return
        if self._paused and not asked:
            self._unasked += len(data)
            if self._unasked > UNASKED_BYTES:
                reset(self)
                return
        self._tcp.write(data)

    def _finish(self) -> None:
        if not self._silent:
            self._silent = True
            try:
                if self._ssl is not None:
                    self._ssl.unwrap()
            except ssl.SSLError:
                pass  # close_notify is out; the client's is not waited for (RFC 8446 section 6.1)
            self._flush(asked=True)
            if self._end is End.EOF and not self._tcp.is_closing():
                self._tcp.write_eof()
        if self._end is End.CLOSE:
            self._tcp.close()

    # -- the transport of HTTP --

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        """What TCP knows, and of TLS the context and the object."""
        if name == "sslcontext":
            return self._context
        return self._ssl if name == "ssl_object" else self._tcp.get_extra_info(name, default)

    def write(self, data: Buffer) -> None:
        """Sends, or keeps until the client has taken what came before."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """The same for several parts, which share records."""
        if self._end is not End.NONE or self._tcp.is_closing():
            return
        self._backlog.add(list_of_data)
        self._work_off()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel does not have."""
        return self._backlog.size + self._tcp.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Those of TCP: what is kept here is kept because it has enough."""
        self._tcp.set_write_buffer_limits(high=high, low=low)

    def pause_reading(self) -> None:
        """No more is given to the protocol above."""
        self._reading = False
        if not self._tcp.is_closing():
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what is here already first."""
        self._reading = True
        if not self._tcp.is_closing():
            self._tcp.resume_reading()
            asyncio.get_running_loop().call_soon(self._pump)

    def can_write_eof(self) -> bool:
        """Our direction can end alone, although many do not know it of TLS."""
        return True

    def write_eof(self) -> None:
        """Ends our direction after what is unsent."""
        if self._end is End.NONE:
            self._end = End.EOF
            self._work_off()

    def is_closing(self) -> bool:
        """Whether writing makes no sense any more."""
        return self._end is End.CLOSE or self._tcp.is_closing()

    def close(self) -> None:
        """Ends the connection after what is unsent; reads no more."""
        if self._end is not End.CLOSE:
            self._end = End.CLOSE
            if not self._tcp.is_closing():
                self._tcp.pause_reading()
            self._work_off()

    def abort(self) -> None:
        """Ends it at once."""
        self._end, self._silent = End.CLOSE, True
        self._tcp.abort()
