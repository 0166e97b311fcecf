"""Taking messages over HTTP: receive, and the answers to leases."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from app.connectors.base import Destination, MQConnector
from app.domain.errors import Overloaded
from app.domain.lease import Result, Settled, Settlement
from app.domain.uri import MqUri
from app.gateway.closing import close_together
from app.gateway.leases import Ending, Lease, Leases
from app.gateway.stream import Counts
from app.gateway.taker import Taker
from app.gateway.terms import Terms
from app.telemetry.metrics import Metrics
from app.wire.lease import LeaseName, peek, verify

logger = logging.getLogger("mq_gateway.leases")

#: Lanes (count) of this process: each holds one message or waits for one, and is a consumer at its broker.
MAX_LANES = 10_000


class Takings:
    """Every Queue has one taker, made at its first receive; all of them share the leases.

    `instance` names this replica in leases, and `key` signs them, where it is None one that only this process has;
    `grew` is told of every change of what is held, in bytes.
    """

    def __init__(
        self,
        instance: str,
        metrics: Metrics,
        counts: Callable[[MqUri], Counts],
        grew: Callable[[int], None],
        *,
        linger: float,
        key: bytes | None = None,
    ) -> None:
        self.leases = Leases(self._ended)
        self.instance = instance
        self._key = key or secrets.token_bytes(32)
        self._metrics = metrics
        self._counts = counts
        self._grew = grew
        self._bytes: Count[str] = Count()
        self._terms = Terms(self.leases, linger, self._shift, lambda: MAX_LANES - self._lanes())
        self._takers: dict[MqUri, Taker] = {}
        #: Of an older configuration, until their lanes are closed.
        self._retired: list[Taker] = []
        #: Lanes of event streams.
        self._claimed = 0

    # Taking.

    async def take(
        self, destination: Destination, connector: MQConnector, *, most: int, seconds: float, wait: float
    ) -> list[Lease]:
        """Up to `most` messages, each leased for `seconds` from now on; none where none came within `wait` seconds.

        Raises Unavailable, BrokerRejected, ConfirmTimeout.
        """
        leases = await self._taker(destination, connector).take(most, seconds, wait)
        if len(leases) > 1:
            for lease in leases:
                self.leases.renew(lease, seconds)  # the first came a moment before the last
        return leases

    def _taker(self, destination: Destination, connector: MQConnector) -> Taker:
        uri = destination.uri
        taker = self._takers.get(uri)
        if taker is not None and (taker.connector is not connector or taker.destination != destination):
            self._retire(taker)
            taker = None
        if taker is None:
            self._drop_idle()
            taker = self._takers[uri] = Taker(destination, connector, self._terms)
        return taker

    def _drop_idle(self) -> None:
        # Where undeclared destinations are allowed, names come without end.
        for uri in [uri for uri, taker in self._takers.items() if taker.is_idle]:
            del self._takers[uri]
        self._retired = [taker for taker in self._retired if not taker.is_idle]

    def _lanes(self) -> int:
        return self._claimed + sum(len(taker.lanes) for taker in self._all())

    @contextmanager
    def claim(self, lanes: int) -> Iterator[None]:
        """So many lanes of the process for the length of the block; raises Overloaded."""
        if self._lanes() + lanes > MAX_LANES:
            raise Overloaded("as many messages are leased as this gateway holds", retry_after=1)
        self._claimed += lanes
        try:
            yield
        finally:
            self._claimed -= lanes

    def _all(self) -> list[Taker]:
        return [*self._takers.values(), *self._retired]

    def encoded(self, leases: Iterable[Lease]) -> None:
        """The answer holds the bodies from now on; what is left to be told to the broker is small."""
        for lease in leases:
            if not lease.over:
                self._shift(lease.mq_uri.service, -lease.size)
            lease.forget_message()

    def delivered(self, leases: Iterable[Lease]) -> None:
        """The client has them."""
        for lease in leases:
            self._counts(lease.mq_uri).delivered += 1

    def token(self, lease: Lease) -> str:
        """What a client calls the lease."""
        return LeaseName(self.instance, lease.mq_uri, lease.number).signed(self._key)

    # Answers to leases.

    def other_owner(self, settlement: Settlement, token: str) -> str | None:
        """Which replica granted it, if another one did: None where none did, or not for what the settlement is of.

        Who may take from one destination may not answer for another. Of what says it is ours, `settle` makes sure.
        """
        seen = peek(token)
        if seen is None or seen.instance == self.instance:
            return None
        name = verify(token, self._key)
        return name.instance if name is not None and name.mq_uri == settlement.mq_uri else None

    def settle(self, settlement: Settlement, token: str) -> Settled:
        """What a worker says of a lease of this replica."""
        uri = settlement.mq_uri
        match settlement.verb:
            case "ack":
                return Settled(self.ack(uri, token))
            case "nack":
                return Settled(self.nack(uri, token, requeue=settlement.requeue, delay=settlement.delay))
            case "renew":
                return Settled(*self.renew(uri, token, settlement.seconds))

    def ack(self, mq_uri: MqUri, token: str) -> Result:
        """Done with the message."""
        name = self._name(mq_uri, token)
        return "unknown" if name is None else self.leases.ack(mq_uri, name.number)

    def nack(self, mq_uri: MqUri, token: str, *, requeue: bool, delay: float) -> Result:
        """Not done: back to the queue after `delay` seconds, or refused for good."""
        name = self._name(mq_uri, token)
        return "unknown" if name is None else self.leases.nack(mq_uri, name.number, requeue=requeue, delay=delay)

    def renew(self, mq_uri: MqUri, token: str, seconds: float | None) -> tuple[Result, float | None]:
        """Hold it longer: `seconds`, or its own length, from now on; also when it ends (Unix time)."""
        name = self._name(mq_uri, token)
        if name is None:
            return "unknown", None
        lease = self.leases.find(mq_uri, name.number)
        if lease is None:
            return "expired", None
        self.leases.renew(lease, lease.seconds if seconds is None else seconds)
        return "done", lease.expires_at

    def _name(self, mq_uri: MqUri, token: str) -> LeaseName | None:
        """Granted by this process, and for this destination."""
        name = verify(token, self._key)
        return name if name is not None and (name.instance, name.mq_uri) == (self.instance, mq_uri) else None

    # What is held.

    def buffered(self, service: str | None = None) -> int:
        """Bytes that wait for a taker or for the end of an answer, of one service or of all."""
        return self._bytes.total() if service is None else self._bytes[service]

    def give_way(self, wanted: int) -> int:
        """Let messages nobody has taken go back, for `wanted` bytes; the bytes freed."""
        freed = 0
        for taker in self._all():
            if freed < wanted:
                freed += taker.give_way(wanted - freed)
        return freed

    def _shift(self, service: str, size: int) -> None:
        self._bytes[service] += size
        if size:
            self._grew(size)

    def _ended(self, lease: Lease, ending: Ending) -> None:
        self._shift(lease.mq_uri.service, -lease.size)
        self._metrics.leases_ended.labels(lease.mq_uri.service, ending).inc()

    # Endings.

    def retire(self, outdated: Callable[[MqUri], bool]) -> None:
        """What the configuration no longer has as it was: messages go back, leases end."""
        for uri in list(filter(outdated, self._takers)):
            self._retire(self._takers[uri])

    def _retire(self, taker: Taker) -> None:
        del self._takers[taker.destination.uri]
        self._retired.append(taker)
        taker.retire()

    def stop(self) -> None:
        """Whoever waits gets what there is; what nobody has taken goes back. Leases can still be answered."""
        for taker in self._all():
            taker.stop()

    async def close(self, seconds: float) -> None:
        """At shutdown: everything goes back, within about `seconds`."""
        for taker in self._all():
            taker.retire()
        self.leases.close()
        chores: list[asyncio.Task[None]] = [task for taker in self._all() for task in taker.chores]
        await close_together("leases", chores, seconds)
