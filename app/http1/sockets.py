"""Listening sockets, tuned; accepted ones inherit the options."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct

#: Bytes the kernel keeps for a reader that does not read (it doubles the number). Without it a stalled event
#: stream hides megabytes of events that nobody will ever see.
SEND_BUFFER = 64 << 10
#: Milliseconds after which sent and unacknowledged bytes end a connection, also one that is being closed.
USER_TIMEOUT = 30_000

# struct linger: on, for no time. close() then throws away what is unsent (socket(7)).
_NO_LINGER = struct.pack("ii", 1, 0)

# `localhost` may resolve to an IPv6 address on a machine without IPv6.
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def listen(host: str, port: int) -> list[socket.socket]:
    """Bound sockets for every address of `host`; port 0 takes one free port for all of them.

    They do not accept yet: until the application is up, clients are refused. Raises OSError where an
    address is taken, or none exists.
    """
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        taken = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bind(family, (address[0], taken, *address[2:])))
        except OSError as error:
            failure = error
            if error.errno not in _ABSENT:
                break
    if failure is not None and (not bound or failure.errno not in _ABSENT):
        for each in bound:
            each.close()
        raise failure
    return bound


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection at once, so that neither the process nor the kernel keeps what is unsent.

    The client sees a reset: a body that ends with the connection cannot pass for a whole one.
    """
    made = transport.get_extra_info("socket")
    if made is not None:
        # Gone already: the kernel says OSError, uvloop ValueError once it has no descriptor any more.
        with contextlib.suppress(OSError, ValueError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def url_of(bound: socket.socket, scheme: str = "http") -> str:
    """The base URL of a listening socket, such as `http://127.0.0.1:8080`; a wildcard becomes loopback."""
    host, port = bound.getsockname()[:2]
    if bound.family == socket.AF_INET6:
        return f"{scheme}://[{'::1' if host == '::' else host}]:{port}"
    return f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  # nothing is bound here
