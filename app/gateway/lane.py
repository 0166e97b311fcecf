"""A lane: one consumer at the broker that has one message at a time, so that giving it back disturbs no other.

Where a service consumes from several brokers it has one of each at a time, and gives back one without the others.

What one message's return means differs: RabbitMQ takes it back alone, ActiveMQ only together with everything else its
subscription holds. With one message for each subscription both are the same (see docs/adr/0009).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from app.connectors.base import Delivery, Destination, MQConnector, Subscription
from app.gateway.leases import Lease

#: A broker that counts otherwise may push more; all of it is held, and goes back together.
PREFETCH = 1
#: Seconds for giving back and UNSUBSCRIBE.
CLOSE_DEADLINE = 5.0


class LaneOwner(Protocol):
    """Who deals out what comes on a lane (see Taker)."""

    def arrived(self, lane: Lane, delivery: Delivery) -> None:
        """A message is here."""

    def settled(self, lane: Lane) -> None:
        """A message is no longer here: the lane waits for the next one."""

    def withdrawn(self, lane: Lane, token: str) -> None:
        """A message went back before anybody took it."""

    def ended(self, lane: Lane, detail: str | None) -> None:
        """The lane is over: its link was lost (None), or the broker says why not."""


class Lane:
    """The Listener of one subscription. `since` (loop time) is when it last began to wait, or got a message.

    One that `stays` belongs to somebody who wants the next message in any case, be it the one just given back.
    """

    def __init__(self, owner: LaneOwner, *, stays: bool = False) -> None:
        self.since = 0.0
        #: Tokens of messages that wait here for a taker.
        self.parked: set[str] = set()
        self.leased: dict[str, Lease] = {}
        #: A message is to go back: the lane ends as soon as no lease holds it.
        self.returns = False
        self._owner = owner
        self._stays = stays
        self._subscription: Subscription | None = None
        self._early: list[Delivery] = []
        self._over = False

    @property
    def is_idle(self) -> bool:
        """Nothing is leased."""
        return not self.leased

    @property
    def is_free(self) -> bool:
        """The broker sends the next message to it."""
        return self._subscription is not None and not (self.leased or self.parked or self._over)

    async def open(self, destination: Destination, connector: MQConnector, timeout: float) -> None:
        """Subscribe; raises what MQConnector.subscribe raises."""
        subscription = await connector.subscribe(
            destination, self, acknowledge=True, prefetch=PREFETCH, timeout=timeout
        )
        if self._over:  # closed while the broker was asked
            await subscription.close(CLOSE_DEADLINE)
            return
        self._subscription = subscription
        self.since = _now()

    def release_early(self) -> None:
        """Messages that came before the broker's RECEIPT; an ack of theirs was not possible yet."""
        early, self._early = self._early, []
        for delivery in early:
            self._owner.arrived(self, delivery)

    async def close(self) -> None:
        """What was not acked goes back. Idempotent."""
        self._over = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close(CLOSE_DEADLINE)

    # What ends a lease.

    def ack(self, delivery: Delivery) -> bool:
        """Acknowledge, and wait for the next message."""
        subscription = self._take_out(delivery)
        taken = subscription is not None and subscription.ack(delivery)
        self._owner.settled(self)
        return taken

    def reject(self, delivery: Delivery) -> bool:
        """Refuse for good, and wait for the next message."""
        subscription = self._take_out(delivery)
        taken = subscription is not None and subscription.reject(delivery)
        self._owner.settled(self)
        return taken

    def give_back(self, delivery: Delivery) -> bool:
        """The broker has the message again: by the end of the lane, where it does not stay for the next one."""
        if not self._stays:
            return self.expire(delivery)
        subscription = self._take_out(delivery)
        taken = subscription is not None and subscription.nack(delivery)
        self._owner.settled(self)
        return taken

    def expire(self, delivery: Delivery) -> bool:
        """The lane ends, and with it the broker has the message again.

        Over several brokers it may have a message of each: then only what brought this one ends now.
        """
        subscription = self._take_out(delivery)
        self.returns = True
        if subscription is not None and self.leased:
            subscription.leave(delivery)
        self._owner.settled(self)
        return subscription is not None

    def let_go(self, delivery: Delivery) -> bool:
        """Give back what nobody has taken while something is leased here; False where it goes back with the lane.

        The lane ends with its leases, for it does not hear of everything any more.
        """
        if self._subscription is None or not self._subscription.leave(delivery):
            return False
        self.parked.discard(delivery.token)
        self.returns = True
        return True

    def forfeit(self) -> Iterable[Lease]:
        """Its leases, which it has no longer: what they held goes back, or has gone."""
        leased, self.leased = self.leased, {}
        return leased.values()

    def _take_out(self, delivery: Delivery) -> Subscription | None:
        return None if self.leased.pop(delivery.token, None) is None else self._subscription

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        if self._subscription is None:
            self._early.append(delivery)
        elif not self._over:
            self._owner.arrived(self, delivery)

    def on_lost(self) -> None:
        self._owner.ended(self, None)  # another one is opened where somebody still waits

    def on_restored(self) -> None:
        """Ended by `on_lost` already."""

    def on_withdrawn(self, token: str) -> None:
        before = len(self._early)
        self._early = [delivery for delivery in self._early if delivery.token != token]
        if len(self._early) == before:
            self._owner.withdrawn(self, token)

    def on_cancelled(self, detail: str) -> None:
        self._subscription = None
        self._owner.ended(self, detail)


def _now() -> float:
    return asyncio.get_running_loop().time()
