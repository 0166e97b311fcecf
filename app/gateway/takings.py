"""Taking messages over HTTP: receive, and the answers to leases."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from app.connectors.base import Destination, MQConnector
from app.domain.errors import NotSupportedByBroker, Overloaded
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

#: A Queue, or a Topic with the name of a durable subscription.
_Source = tuple[MqUri, str | None]


class Takings:
    """Every Queue and every durable subscription has one taker, made at its first receive; all share the leases.

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
        self._takers: dict[_Source, Taker] = {}
        #: Of an older configuration, until their lanes are closed.
        self._retired: list[Taker] = []
        #: Lanes of event streams.
        self._claimed = 0

    # Taking.

    async def take(
        self, destination: Destination, connector: MQConnector, *, most: int, seconds: float, wait: float
    ) -> list[Lease]:
        """Up to `most` messages, each leased for `seconds` from now on; none where none came within `wait` seconds.

        Raises Unavailable, BrokerRejected, ConfirmTimeout, NotSupportedByBroker.
        """
        if destination.subscription is not None and not connector.has_subscriptions:
            raise NotSupportedByBroker(f"{connector.service} has no durable subscriptions")
        leases = await self._taker(destination, connector).take(most, seconds, wait)
        if len(leases) > 1:
            for lease in leases:
                self.leases.renew(lease, seconds)  # the first came a moment before the last
        return leases

    def _taker(self, destination: Destination, connector: MQConnector) -> Taker:
        source = destination.uri, destination.subscription
        taker = self._takers.get(source)
        if taker is not None and (taker.connector is not connector or taker.destination != destination):
            self._retire(taker)
            taker = None
        if taker is None:
            self._drop_idle()
            taker = self._takers[source] = Taker(destination, connector, self._terms)
        return taker

    def _drop_idle(self) -> None:
        # Where undeclared destinations are allowed, names come without end.
        for source in [source for source, taker in self._takers.items() if taker.is_idle]:
            del self._takers[source]
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
        return LeaseName(self.instance, lease.mq_uri, lease.number, lease.subscription).signed(self._key)

    # Answers to leases.

    def other_owner(self, settlement: Settlement, token: str) -> str | None:
        """Which replica granted it, if another one did: None where none did, or not for what the settlement is of.

        Who may take from one destination may not answer for another. Of what says it is ours, `settle` makes sure.
        """
        seen = peek(token)
        if seen is None or seen.instance == self.instance:
            return None
        name = verify(token, self._key)
        wanted = settlement.mq_uri, settlement.subscription
        return name.instance if name is not None and (name.mq_uri, name.subscription) == wanted else None

    def settle(self, settlement: Settlement, token: str) -> Settled:
        """What a worker says of a lease of this replica."""
        uri, subscription = settlement.mq_uri, settlement.subscription
        match settlement.verb:
            case "ack":
                return Settled(self.ack(uri, token, subscription))
            case "nack":
                requeue, delay = settlement.requeue, settlement.delay
                return Settled(self.nack(uri, token, subscription, requeue=requeue, delay=delay))
            case "renew":
                return Settled(*self.renew(uri, token, settlement.seconds, subscription))

    def ack(self, mq_uri: MqUri, token: str, subscription: str | None = None) -> Result:
        """Done with the message."""
        name = self._name(mq_uri, token, subscription)
        return "unknown" if name is None else self.leases.ack(mq_uri, name.number)

    def nack(
        self, mq_uri: MqUri, token: str, subscription: str | None = None, *, requeue: bool, delay: float
    ) -> Result:
        """Not done: back to the queue after `delay` seconds, or refused for good."""
        name = self._name(mq_uri, token, subscription)
        return "unknown" if name is None else self.leases.nack(mq_uri, name.number, requeue=requeue, delay=delay)

    def renew(
        self, mq_uri: MqUri, token: str, seconds: float | None, subscription: str | None = None
    ) -> tuple[Result, float | None]:
        """Hold it longer: `seconds`, or its own length, from now on; also when it ends (Unix time)."""
        name = self._name(mq_uri, token, subscription)
        if name is None:
            return "unknown", None
        lease = self.leases.find(mq_uri, name.number)
        if lease is None:
            return "expired", None
        self.leases.renew(lease, lease.seconds if seconds is None else seconds)
        return "done", lease.expires_at

    def _name(self, mq_uri: MqUri, token: str, subscription: str | None) -> LeaseName | None:
        """Granted by this process, and for this source: who may take from one may not answer for another."""
        name = verify(token, self._key)
        wanted = self.instance, mq_uri, subscription
        return name if name is not None and (name.instance, name.mq_uri, name.subscription) == wanted else None

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
        for source in [source for source in self._takers if outdated(source[0])]:
            self._retire(self._takers[source])

    def _retire(self, taker: Taker) -> None:
        del self._takers[taker.destination.uri, taker.destination.subscription]
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
