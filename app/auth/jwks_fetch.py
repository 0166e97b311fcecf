"""The document at a URL: one GET, a bound on everything.

The pool of connections is used without an HTTP client around it: there are no redirects, cookies, proxies of the
environment or content encodings.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import httpx

from app.auth.jwk_set import MAX_DOCUMENT

#: Seconds for everything, from the look-up of the name to the last byte; and for a connection to one of its addresses.
FETCH_SECONDS = 5.0
CONNECT_SECONDS = 2.0
#: Addresses (count) of a name that are tried.
MAX_ADDRESSES = 4
#: Pieces (count) a body may come in, and after how many others have their turn: a chunk of one byte costs as much as
#: one of thousands.
MAX_PIECES = 2048
_PIECES_AT_ONCE = 32

#: As socket.getaddrinfo has them.
Infos = list[tuple[Any, ...]]
LookUp = Callable[[str, int], Awaitable[Infos]]


class Outcome(StrEnum):
    """What becomes of a fetch: the closed set of `mq_gateway_jwks_fetches_total{outcome}`."""

    OK = "ok"
    #: The keys are those that were there.
    UNCHANGED = "unchanged"
    #: No connection, or another status than 200.
    FAILED = "failed"
    LATE = "late"
    TOO_LARGE = "too_large"
    #: A 200 with no keys that can be used.
    NONSENSE = "nonsense"


class FetchFailed(Exception):
    """No document; the text says why, and nothing of what came."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


async def look_up(name: str, port: int) -> Infos:
    """The look-up of the loop. It has few threads for that: a process with many names brings a better one."""
    return list(await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM))


class JwksFetch:
    """Fetches, each time over a connection of its own: minutes lie between."""

    def __init__(self, url: str, *, look_up: LookUp = look_up, seconds: float = FETCH_SECONDS) -> None:
        self._url = httpx.URL(url).copy_with(fragment=None)
        self._host = self._url.raw_host.decode("ascii")
        self._port = self._url.port or (443 if self._url.scheme == "https" else 80)
        self._look_up = look_up
        self._seconds = seconds
        self._looking: asyncio.Future[Infos] | None = None
        # The system's authorities, and SSL_CERT_FILE: an issuer within a site has a certificate of the site's.
        self._tls = (
            ssl.create_default_context() if self._url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )

    @property
    def where(self) -> str:
        """The URL as far as it may be logged: a query may hold a key."""
        return f"{self._url.scheme}://{self._url.netloc.decode('ascii')}{self._url.path}"

    async def __call__(self) -> bytes:
        """The body of a 200; raises FetchFailed, after the deadline at the latest."""
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
        pool = httpx.AsyncHTTPTransport(verify=self._tls, limits=limits, trust_env=False)
        try:
            async with asyncio.timeout(self._seconds), pool:
                return await self._fetch(pool)
        except (TimeoutError, httpx.TimeoutException):
            raise FetchFailed(Outcome.LATE, f"no answer within {self._seconds:g} s") from None
        except (httpx.TransportError, OSError, UnicodeError) as error:
            raise FetchFailed(Outcome.FAILED, f"{type(error).__name__}: {error}"[:200]) from None

    async def _fetch(self, pool: httpx.AsyncHTTPTransport) -> bytes:
        addresses = list(dict.fromkeys(info[4][0] for info in await self._addresses()))[:MAX_ADDRESSES]
        for place, address in enumerate(addresses, 1):
            try:
                response = await pool.handle_async_request(self._request(address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place == len(addresses):
                    raise
                continue
            try:
                return await _body(response)
            finally:
                await response.aclose()
        raise FetchFailed(Outcome.FAILED, "the name has no address")

    async def _addresses(self) -> Infos:
        """A look-up cannot be ended: one that hangs is joined by the next fetch, and takes one thread for ever."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_up(self._host, self._port))
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, done: asyncio.Future[Infos]) -> None:
        self._looking = None
        if not done.cancelled():
            done.exception()  # nobody may be waiting any more

    def _request(self, address: str) -> httpx.Request:
        # By the address, so that the library looks nothing up; the certificate must be the name's.
        headers = {
            "host": self._url.netloc.decode("ascii"),
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        timeout = httpx.Timeout(self._seconds, connect=min(CONNECT_SECONDS, self._seconds)).as_dict()
        extensions = {"timeout": timeout, "sni_hostname": self._host}
        return httpx.Request("GET", self._url.copy_with(host=address), headers=headers, extensions=extensions)


async def _body(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise FetchFailed(Outcome.FAILED, f"status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed(Outcome.NONSENSE, "a content encoding that was not asked for")
    body = bytearray()
    pieces = 0
    async for piece in response.aiter_raw():
        body += piece
        pieces += 1
        if len(body) > MAX_DOCUMENT or pieces > MAX_PIECES:
            raise FetchFailed(Outcome.TOO_LARGE, f"more than {MAX_DOCUMENT} bytes, or {MAX_PIECES} pieces")
        if pieces % _PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return bytes(body)
