"""Which pages and names may reach us: Host (DNS rebinding), Origin and Fetch Metadata (CSRF), CORS.

These rules hold in every auth mode. A browser sends a request with whatever rights its place in the network
gives it, also for a page from elsewhere; what such a page may not do is decided here, before anything is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from app.api.answer import Header
from app.api.request_headers import RequestHeaders
from app.config.settings import Settings
from app.domain.errors import Forbidden
from app.wire.ip import plain_address

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# RFC 9110 section 7.2 and RFC 6454: nothing else that a URL may hold, such as user information.
_AUTHORITY = r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST = re.compile(_AUTHORITY)
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}

ALLOW_METHODS = b"GET, HEAD, POST, DELETE"
#: Request headers a page may set beside the ones every page may (Fetch section 2.2.2).
ALLOWED_HEADERS = frozenset(
    {
        *("authorization", "last-event-id", "cache-control", "content-type", "idempotency-key"),
        *("x-request-id", "traceparent", "tracestate", "baggage"),
    }
)
ALLOWED_HEADER_PREFIXES = ("mq-", "ce-")
_EXPOSED = (
    b"access-control-expose-headers",
    b"X-Request-Id, Retry-After, Allow, Mq-Lease, Mq-Lease-Expires-At, Mq-Uri, Mq-Message-Id, Mq-Correlation-Id,"
    b" Mq-Type, Mq-Redelivered, Mq-Received-At, Mq-Delivery-Count, Mq-Headers, Mq-Headers-Omitted",
)
#: What Sec-Fetch-Site says of a page that is not of this origin.
_ELSEWHERE = frozenset({b"cross-site", b"same-site"})
#: Seconds a browser may remember a preflight's answer.
_MAX_AGE = (b"access-control-max-age", b"600")
_VARY: Header = (b"vary", b"Origin")
_VARY_PREFLIGHT: Header = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")


class Guard:
    """The rules of one configuration. Every check raises Forbidden or returns."""

    def __init__(self, settings: Settings) -> None:
        self._check_names = settings.auth.is_open
        self._hosts = frozenset(host.strip("[]").rstrip(".") for host in settings.server.allowed_hosts)
        self._origins = frozenset(settings.server.allowed_origins)
        # The same few names come with every request.
        self._is_ours = lru_cache(maxsize=256)(self._decide)

    def check_host(self, headers: RequestHeaders, local_address: str | None) -> None:
        """With `auth.mode: none` only names that cannot have been rebound to us (see `_decide`)."""
        if not self._check_names:
            return
        host = headers.first(b"host")
        # HTTP/1.0 has no Host; no browser speaks it. The server refuses HTTP/1.1 without one (RFC 9112, 3.2).
        if host is None or self._is_ours(host, local_address):
            return
        raise Forbidden(
            "this Host is neither a loopback name nor in server.allowed_hosts; with auth.mode: none any web page"
            " could reach the gateway through a name of its own"
        )

    def _decide(self, host: bytes, local_address: str | None) -> bool:
        """A loopback name or address, a configured host, or the very address the connection came in on.

        The last is what probes of an orchestrator and of a load balancer send. An address cannot be rebound:
        a page under it comes from us.
        """
        name = _host_name(host)
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        address = plain_address(name)
        return address is not None and (address.is_loopback or address == plain_address(local_address or ""))

    def check_method(self, headers: RequestHeaders, method: str) -> None:
        """A page from elsewhere sends no unsafe request unless its origin is on the allow-list."""
        if method not in SAFE_METHODS and self._is_foreign(headers):
            raise Forbidden("this origin is not in server.allowed_origins and may not change anything here")

    def check_queue_stream(self, headers: RequestHeaders) -> None:
        """Reading a Queue takes messages away: never for a foreign page, a prefetch or a navigation."""
        if self._is_foreign(headers):
            raise Forbidden("this origin is not in server.allowed_origins and may not take from a Queue")
        if _is_prefetch(headers):
            raise Forbidden("a prefetch would take messages from the Queue that nobody reads")
        if headers.first(b"sec-fetch-mode") == b"navigate":
            raise Forbidden("opening a Queue as a page would take messages from it; use an EventSource or fetch")

    def _is_foreign(self, headers: RequestHeaders) -> bool:
        """Whether a page of another origin caused the request. No browser, no Origin: not foreign.

        Sec-Fetch-Site comes from the browser itself and a page cannot set it; `same-origin` there outweighs
        an Origin that differs from Host because a proxy changed the Host.
        """
        site = headers.first(b"sec-fetch-site")
        origin = headers.get(b"origin")
        if origin is None:
            return site in _ELSEWHERE
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return False
        # To a browser http and https of one name are different sites, and here they would look the same.
        return site in _ELSEWHERE or not (site == b"same-origin" or _is_same(text, headers.first(b"host")))

    def cors(self, headers: RequestHeaders) -> tuple[Header, ...]:
        """The CORS headers of an answer: for an origin on the allow-list by name, never `*`."""
        if not self._origins:
            return ()
        origin = headers.first(b"origin")
        if origin is None or origin.decode("latin-1").lower() not in self._origins:
            return (_VARY,)
        allow = (b"access-control-allow-origin", origin)
        return (allow, (b"access-control-allow-credentials", b"true"), _EXPOSED, _VARY)

    def preflight(self, headers: RequestHeaders) -> tuple[Header, ...] | None:
        """What a preflight adds to `cors()`; None where the request is none. Raises Forbidden."""
        if b"origin" not in headers or b"access-control-request-method" not in headers:
            return None
        if self._is_foreign(headers):
            raise Forbidden("this origin is not in server.allowed_origins")
        asked = (headers.first(b"access-control-request-headers") or b"").decode("latin-1")
        allowed = ", ".join(_permitted(asked.split(",")))
        methods = (b"access-control-allow-methods", ALLOW_METHODS)
        return (
            methods,
            (b"access-control-allow-headers", allowed.encode("latin-1")),
            _MAX_AGE,
            _VARY_PREFLIGHT,
        )


def _permitted(names: Iterable[str]) -> list[str]:
    """Of the header names a page asks for, those it may set. A `*` would not cover them with credentials."""
    clean = (name.strip().lower() for name in names)
    return [name for name in clean if name in ALLOWED_HEADERS or name.startswith(ALLOWED_HEADER_PREFIXES)]


def _host_name(host: bytes) -> str:
    """The name of `name:port` or `[address]:port`, lower case, without brackets and the root's dot."""
    found = _HOST.fullmatch(host.decode("latin-1").lower())
    return found["name"].strip("[]").rstrip(".") if found else ""


def _is_same(origin: str, host: bytes | None) -> bool:
    """Whether an Origin names the Host asked for. The scheme is not compared: a proxy may have ended TLS."""
    mine = _HOST.fullmatch((host or b"").decode("latin-1").lower())
    theirs = _ORIGIN.fullmatch(origin)
    if not mine or not theirs:
        return False
    default = _DEFAULT_PORTS.get(theirs["scheme"])
    return mine["name"] == theirs["name"] and (mine["port"] or default) == (theirs["port"] or default)


def _is_prefetch(headers: RequestHeaders) -> bool:
    return any(b"prefetch" in (headers.first(name) or b"") for name in (b"sec-purpose", b"purpose", b"x-moz"))
