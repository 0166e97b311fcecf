"""A subscription at several brokers that know nothing of each other: one part at each, one listener for all.

The epoch of a delivery names the connection it came over, so an answer finds its part; tokens of different brokers
may be alike and are told apart by it too. Part of a Topic that was not subscribed for a while has missed something:
the listener is told of a loss when the part stands (again), as for a lost link (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from app.connectors.base import Delivery, Destination, Listener, Subscription
from app.connectors.stomp.member import Member
from app.connectors.stomp.reminders import Reminders
from app.connectors.stomp.restore import DEADLINE
from app.connectors.stomp.session import Session
from app.connectors.stomp.subscription import END_DEADLINE, StompSubscription
from app.domain.errors import BrokerUnavailable, GatewayError, OutcomeUnknown, Unavailable

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds that the other brokers have to take a subscription when one has; who is slower joins later.
STRAGGLERS = 0.5


class Part:
    """The Listener at one broker."""

    def __init__(self, spread: Spread, member: Member) -> None:
        self.member = member
        self.subscription: StompSubscription | None = None
        #: The broker has taken it, and the connection is there.
        self.stands = False
        #: Of the connection that brought the latest message.
        self.epoch = 0
        #: Tokens of what waits for an answer.
        self.held: set[str] = set()
        self._spread = spread

    def made(self, subscription: StompSubscription) -> None:
        """It is about to be subscribed; raises BrokerUnavailable where nobody wants that any more."""
        if not self._spread.has(self):
            raise BrokerUnavailable("it was given up meanwhile", retry_after=1)
        self.subscription = subscription

    def outside(self, token: str) -> str:
        """What the listener of all parts knows a token as."""
        return f"{self.epoch} {token}"

    def on_message(self, delivery: Delivery) -> None:
        self._spread.came(self, delivery)

    def on_lost(self) -> None:
        self._spread.fell(self)

    def on_restored(self) -> None:
        self._spread.stood(self)

    def on_withdrawn(self, token: str) -> None:
        self._spread.withdrawn(self, token)

    def on_cancelled(self, detail: str) -> None:
        self._spread.cancelled(self, detail)


class Spread(Subscription):
    """Open as soon as one broker has taken it. Of a broker that is lost only what it delivered is void."""

    def __init__(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        on_end: Callable[[Spread], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.destination = destination
        self._listener = listener
        self._acknowledge = acknowledge
        self._prefetch = prefetch
        self._on_end = on_end
        self._spawn = spawn
        self._parts: dict[Member, Part] = {}
        self._opening: list[asyncio.Task[None]] = []
        self._reminders = Reminders(self._ask_again)
        #: A part stands, or an attempt is over.
        self._news = asyncio.Event()
        #: Somebody has it; what stands before that was missed by nobody.
        self._is_open = False
        #: The listener was told that nothing stands.
        self._is_lost = False
        self._closing = False

    @property
    def stands(self) -> bool:
        """Whether messages come from anywhere."""
        return any(part.stands for part in self._parts.values())

    async def open(self, members: Sequence[Member], timeout: float) -> None:
        """Subscribe at these, at least one, and return when one took it; raises what MQConnector.subscribe raises."""
        parts = [self._add(member) for member in members]
        self._opening = [self._spawn(self._subscribe(part, timeout)) for part in parts]
        for task in self._opening:
            task.add_done_callback(lambda _: self._news.set())
        try:
            await self._one_stands()
            _, pending = await asyncio.wait(self._opening, timeout=STRAGGLERS)
            self._check_stands()
        except BaseException:
            self._spawn(self.close(END_DEADLINE))
            raise
        self._opening = list(pending)
        self._is_open = True

    async def _one_stands(self) -> None:
        """It may be one that was joined: those that were asked may be black holes."""
        while not (self.stands or all(task.done() for task in self._opening)):
            self._news.clear()
            await self._news.wait()
        self._check_stands()

    def _check_stands(self) -> None:
        if not self.stands:
            failures = [task.exception() for task in self._opening if task.done() and not task.cancelled()]
            failure = next(filter(None, failures), None)
            raise failure or BrokerUnavailable("the link was lost just now", retry_after=1)

    def _add(self, member: Member) -> Part:
        part = self._parts[member] = Part(self, member)
        return part

    async def _subscribe(self, part: Part, timeout: float) -> None:
        try:
            await part.member.consumers.subscribe(
                self.destination,
                part,
                acknowledge=self._acknowledge,
                prefetch=self._prefetch,
                timeout=timeout,
                made=part.made,
            )
        except BaseException as error:
            if isinstance(error, GatewayError):
                logger.warning("%s: not subscribed at %s: %s", self.destination.uri, part.member.address, error)
            if self.has(part) and isinstance(error, Unavailable | OutcomeUnknown):
                self._reminders.add(part.member)  # who refuses is left alone, for that may end its connection
            self._drop(part)
            raise
        self.stood(part)

    def _ask_again(self, member: Member) -> None:
        if member not in self._parts:
            self._spawn(self._subscribe(self._add(member), DEADLINE))

    def join(self, member: Member, session: Session) -> None:
        """A broker is there (again): where there is no part yet, it is subscribed with those to be restored."""
        if member in self._parts or self._closing:
            return
        part = self._add(member)
        part.made(
            member.consumers.enlist(
                session.dialect, self.destination, part, acknowledge=self._acknowledge, prefetch=self._prefetch
            )
        )

    async def part_from(self, member: Member) -> None:
        """Its address is not among ours any more: what it delivered and was not acked goes back."""
        self._reminders.drop(member)
        part = self._parts.get(member)
        if part is None:
            return
        stood, subscription = part.stands, part.subscription
        self._drop(part)
        if not stood:
            self._tell_missed()  # since its loss, and it will not be restored
        if subscription is not None:
            await subscription.close(END_DEADLINE)

    # What parts tell.

    def has(self, part: Part) -> bool:
        """It was not given up."""
        return self._parts.get(part.member) is part

    def came(self, part: Part, delivery: Delivery) -> None:
        if not self.has(part):
            return
        self.stood(part)  # the first may come before the RECEIPT
        part.epoch = delivery.epoch
        if self._acknowledge:
            part.held.add(delivery.token)
        self._listener.on_message(replace(delivery, token=part.outside(delivery.token)))

    def withdrawn(self, part: Part, token: str) -> None:
        part.held.discard(token)
        self._listener.on_withdrawn(part.outside(token))

    def stood(self, part: Part) -> None:
        if part.stands or not self.has(part):
            return
        part.stands = True
        self._news.set()
        if self._is_lost:
            self._is_lost = False
            self._listener.on_restored()
        else:
            self._tell_missed()

    def _tell_missed(self) -> None:
        """Something of a Topic was missed at one of the brokers; a Queue keeps what is not fetched."""
        if self._is_open and not (self._acknowledge or self._is_lost or self._closing):
            self._listener.on_lost()
            self._listener.on_restored()

    def fell(self, part: Part) -> None:
        if not part.stands:
            return
        part.stands = False
        held, part.held = part.held, set()
        if self.stands or not self._is_open:
            for token in held:
                self._listener.on_withdrawn(part.outside(token))
        elif not self._closing:
            self._is_lost = True
            self._listener.on_lost()

    def cancelled(self, part: Part, detail: str) -> None:
        if not self.has(part):
            return
        if part.subscription is not None and part.subscription.is_unanswered:
            self._reminders.add(part.member)
        if not self._is_open:
            self._drop(part)  # who opens it is told where there is no other
            return
        others = [other for other in self._parts.values() if other is not part]
        if any(other.stands for other in others) or (others and not part.stands):
            logger.warning("%s: %s ended it: %s", self.destination.uri, part.member.address, detail)
            self._drop(part)
            self._tell_missed()
        else:
            self._spawn(self.close(END_DEADLINE))
            self._listener.on_cancelled(detail)

    def _drop(self, part: Part) -> None:
        if self.has(part):
            del self._parts[part.member]
        self.fell(part)
        part.subscription = None  # they would keep each other

    # What the listener answers.

    def ack(self, delivery: Delivery) -> bool:
        found = self._brought(delivery)
        return found is not None and found[0].ack(found[1])

    def nack(self, delivery: Delivery) -> bool:
        found = self._brought(delivery)
        return found is not None and found[0].nack(found[1])

    def reject(self, delivery: Delivery) -> bool:
        found = self._brought(delivery)
        return found is not None and found[0].reject(found[1])

    def leave(self, delivery: Delivery) -> bool:
        if len(self._parts) < 2 or (found := self._brought(delivery)) is None:
            return False
        part = next(part for part in self._parts.values() if part.subscription is found[0])
        self._drop(part)
        self._spawn(found[0].close(END_DEADLINE))
        return True

    def _brought(self, delivery: Delivery) -> tuple[StompSubscription, Delivery] | None:
        """The subscription that brought it and waits for its answer, and the delivery as that one knows it."""
        token = delivery.token.partition(" ")[2]
        for part in self._parts.values():
            if part.epoch == delivery.epoch and token in part.held and part.subscription is not None:
                part.held.discard(token)
                return part.subscription, replace(delivery, token=token)
        return None

    async def close(self, timeout: float) -> None:
        if self._closing:
            return
        self._closing = True
        self._on_end(self)
        opening, self._opening = self._opening, []
        for task in opening:
            task.cancel()
        self._reminders.close()
        parts, self._parts = list(self._parts.values()), {}
        subscriptions = [part.subscription for part in parts if part.subscription is not None]
        for part in parts:
            part.subscription = None
        await asyncio.gather(*(each.close(timeout) for each in subscriptions))
