"""How one replica asks another: one HTTP request with a seal, one answer with a seal, a bound on everything.

The pool of connections is used without an HTTP client around it, for a client would follow what strangers say: there
are no redirects, no cookies, no proxies of the environment, no content encodings here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum

import httpx

from app.connectors.stomp.addresses import Address
from app.gateway.closing import close_together
from app.telemetry.metrics import Metrics
from app.wire import peer, peer_seal
from app.wire.peer import Answer, Question

logger = logging.getLogger("mq_gateway.peers")

#: Where a replica answers others.
PATH = "/peer/leases"
#: Seconds for one question: a connection, the request and the answer; and for one that only asks who is there.
ASK_SECONDS = 3.0
WHO_SECONDS = 1.5
CONNECT_SECONDS = 1.0
#: Questions (count) that one peer may have to answer at the same time; further ones wait, each within its time.
MAX_AT_ONCE = 8
#: Bytes of an answer: a thousand results have 32 KiB.
MAX_ANSWER = 128 << 10
#: Connections of all peers, and seconds after which an idle one is closed: sooner than a peer does it by default.
_LIMITS = httpx.Limits(max_connections=512, max_keepalive_connections=64, keepalive_expiry=5.0)
_TIMEOUT = httpx.Timeout(ASK_SECONDS, connect=CONNECT_SECONDS).as_dict()


class Outcome(StrEnum):
    """What becomes of a question: the closed set of `mq_gateway_peer_requests_total{outcome}`."""

    ANSWERED = "answered"
    #: Another instance is there now.
    MOVED = "moved"
    UNREACHABLE = "unreachable"
    LATE = "late"
    #: It was never asked: too many other questions were on their way there.
    BUSY = "busy"
    #: Another status than 200: another secret, another clock, another program.
    REFUSED = "refused"
    #: A 200 that no replica with our secret gives to this question.
    NONSENSE = "nonsense"


class PeerFailed(Exception):
    """No answer; `outcome` says why. Whether the question was read is not known."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


@dataclass(slots=True, eq=False)
class Peer:
    """One address of a replica; `instance` is who was there last, empty where nobody is known to be."""

    address: Address
    instance: str = ""
    #: What became of the last question.
    last: Outcome = Outcome.ANSWERED
    #: Time of the loop until which it is not asked who it is.
    rests_until: float = 0.0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))


class PeerChannel:
    """Asks, and counts what becomes of it."""

    def __init__(
        self, key: bytes, metrics: Metrics, *, tls: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """`tls`: replicas speak HTTPS, as this one does."""
        self._key = key
        self._clock = clock
        self._scheme = "https" if tls else "http"
        self._requests = metrics.peer_requests
        self._pool = httpx.AsyncHTTPTransport(verify=_unverified(), limits=_LIMITS)

    async def close(self, seconds: float) -> None:
        """Close all connections."""
        await close_together("connections to peers", [self._pool.aclose()], seconds)

    async def ask(self, one: Peer, question: Question, request_id: str = "") -> Answer:
        """The answer of whoever is there; raises PeerFailed, after ASK_SECONDS + WHO_SECONDS at the latest."""
        # Who only asks who is there does so once in a round, and waits behind nobody.
        seconds, place = (WHO_SECONDS, nullcontext()) if question.settlement is None else (ASK_SECONDS, one.slots)
        now = asyncio.get_running_loop().time
        over, late = now() + seconds, Outcome.BUSY
        try:
            async with asyncio.timeout_at(over) as limit, place:
                late = Outcome.LATE
                limit.reschedule(max(over, now() + WHO_SECONDS))  # who waited long for others is not the slow one
                answer = await self._ask(one.address, question, request_id)
        except TimeoutError:
            self._count(one, late)
            raise PeerFailed(late) from None
        except PeerFailed as failed:
            self._count(one, failed.outcome)
            raise
        moved = question.to not in ("", answer.instance)
        self._count(one, Outcome.MOVED if moved else Outcome.ANSWERED)
        return answer

    async def _ask(self, address: Address, question: Question, request_id: str) -> Answer:
        body = peer.question_body(question)
        seal = peer_seal.seal(self._key, body, self._clock())
        request = _request(self._scheme, address, body, seal, request_id)
        try:
            text, answer = await self._exchange(request)
        except httpx.TimeoutException:
            raise PeerFailed(Outcome.LATE) from None
        except (httpx.TransportError, OSError):
            raise PeerFailed(Outcome.UNREACHABLE) from None
        if not peer_seal.is_answer(self._key, seal, answer, text):
            raise PeerFailed(Outcome.NONSENSE)
        try:
            return peer.parse_answer(answer, len(question.leases))
        except ValueError:
            raise PeerFailed(Outcome.NONSENSE) from None

    async def _exchange(self, request: httpx.Request) -> tuple[str, bytes]:
        """The seal and the body of a 200."""
        response = await self._pool.handle_async_request(request)
        try:
            if response.status_code != 200:
                raise PeerFailed(Outcome.REFUSED if response.status_code >= 400 else Outcome.NONSENSE)
            # Of known length, as ours are: the bounds then hold also for one that comes in countless small chunks.
            length = response.headers.get("content-length", "")
            if len(length) > 7 or not length.isdecimal() or int(length) > MAX_ANSWER:
                raise PeerFailed(Outcome.NONSENSE)
            body = b"".join([piece async for piece in response.aiter_raw()])
            return response.headers.get(peer_seal.HEADER, ""), body
        finally:
            await response.aclose()

    def _count(self, one: Peer, outcome: Outcome) -> None:
        self._requests.labels(outcome.value).inc()
        if outcome is not one.last:
            level = logging.INFO if outcome in (Outcome.ANSWERED, Outcome.MOVED) else logging.WARNING
            logger.log(level, "peer %s (%s): %s", one.address.name, one.address, outcome.value)
        one.last = outcome


def _unverified() -> ssl.SSLContext:
    """Certificates are not looked at: the seals say who asks and who answers, and hold for these very bytes.

    A certificate would have to be for the address, which is none of what replicas behind one name have. Who stands
    between two of them can read what they say, and can change or make up nothing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(scheme: str, address: Address, body: bytes, seal: str, request_id: str) -> httpx.Request:
    headers = {peer_seal.HEADER: seal, "content-type": "application/json", "accept-encoding": "identity"}
    if request_id:
        headers["x-request-id"] = request_id
    # By the address and not by the name: that is what was looked up, and nothing is looked up again.
    url = httpx.URL(scheme=scheme, host=address.ip, port=address.port, path=PATH)
    return httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": _TIMEOUT})
