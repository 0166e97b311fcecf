"""What one connection may cost: bounds and deadlines of the HTTP side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from app.config.limits import LimitSettings
from app.config.server import ServerSettings
from app.http1.forwarded import Proxies

#: Header lines (count) a request may have besides the message headers of a publish.
HEAD_LINES = 64
#: Bytes of a usual request's head, request line included. More is for publishes that use all the message
#: headers they may have, and for a few connections (count) at the same time, so that heads cannot fill the memory.
HEAD_BYTES = 16 << 10
LARGE_HEADS = 64
#: Bytes of a request target. 32 percent-encoded mqURIs of 255 bytes fit.
TARGET_BYTES = 32 << 10
#: Bytes by which a header line may exceed `limits.header_bytes`, which counts a message header without the
#: prefix it has in HTTP. The exact limit is checked where message headers are read, with a better sentence.
LINE_SLACK = 256
#: Bytes that are parsed at once. Once they hold a request that has to wait for the answer to another one,
#: the rest waits unparsed: requests (count) a client can queue are those that fit in here.
SLICE_BYTES = 8 << 10
#: Bytes of a body nobody wants that are read and thrown away, so that the client comes to read the answer
#: instead of a reset.
DISCARD_BYTES = 16 << 20
#: Seconds a client has to take the last answer and close.
LINGER_SECONDS = 2.0
#: Seconds in which a connection between two requests still takes one when the server goes down.
FAREWELL_SECONDS = 0.25
#: Seconds by which the connection is more patient with a stalled reader than the application, which can
#: count the reason.
STALL_GRACE = 1.0
#: Connections (count) to the management port: probes and scrapers, and none of the places of clients.
MANAGEMENT_CONNECTIONS = 64
#: TLS handshakes (count) at the same time, each of up to 52 KiB (measured): more than the kernel hands over at once.
#: The oldest makes room for the next one, so that who says nothing holds up nobody.
HANDSHAKES = 2560
#: Handshakes (count) beyond the connections there may be, of the descriptors that are kept: to tell clients so.
SPARE_HANDSHAKES = 32
#: Bytes an endpoint of TLS may be made to say, by a client that does not read, beside what the application says.
UNASKED_BYTES = 64 << 10
#: Bytes of records of TLS that bring nothing, such as KeyUpdates, one after the other. Each costs as much as a request.
EMPTY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds in count and bytes, deadlines in seconds; the same for all connections."""

    head_lines: int
    head_bytes: int
    line_bytes: int
    header_timeout: float
    idle_timeout: float
    write_timeout: float
    connections: int
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def of(cls, server: ServerSettings, limits: LimitSettings, *, connections: int) -> Rules:
        """The rules that follow from the settings; `connections` (count) is what the descriptors allow."""
        return cls(
            head_lines=HEAD_LINES + limits.max_headers,
            head_bytes=HEAD_BYTES + limits.max_headers * (limits.header_bytes + LINE_SLACK),
            line_bytes=limits.header_bytes + LINE_SLACK,
            header_timeout=server.header_timeout,
            idle_timeout=server.idle_timeout,
            write_timeout=server.write_timeout,
            connections=connections,
            proxies=Proxies.of(server.trusted_proxies),
        )


class Flow(FlowControl):
    """Reading can be held: then nobody who wants more of a body, or to hear of a disconnect, resumes it."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless held."""
        if not self.held:
            super().resume_reading()


class GatewayState(ServerState):
    """What the connections of one server share. `refused` is told the reason of every refusal, to be counted."""

    def __init__(self, rules: Rules, refused: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.rules = rules
        self.refused = refused or _uncounted
        #: Connections that are gathering a head above HEAD_BYTES.
        self.large_heads: set[object] = set()
        #: Connections before the end of their TLS handshake, the oldest first, and how to end each.
        self.handshakes: dict[asyncio.Transport, Callable[[], None]] = {}
        #: Set whenever the last connection has gone.
        self.emptied = asyncio.Event()


def _uncounted(reason: str) -> None:
    """Nobody counts."""
