"""Leases: messages that HTTP workers hold until they answer, and for no longer than was agreed."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from app.connectors.base import Delivery
from app.domain.lease import Result
from app.domain.uri import MqUri

#: How a lease ended: the closed set of `mq_gateway_leases_ended_total{reason}`.
#: `lost`: the broker had the message already; `left`: the client had gone.
Ending = Literal["acked", "nacked", "rejected", "expired", "lost", "left"]

#: Ends (count) that are remembered, so that an answer given twice is `done` twice; older ones are `expired`.
MAX_REMEMBERED = 100_000
#: Entries of the schedule that may be out of date before it is made anew.
_MAX_STALE = 1000


class Holder(Protocol):
    """Who holds the message at the broker (see Lane)."""

    def ack(self, delivery: Delivery) -> bool:
        """Acknowledge; False where the delivery is of an older epoch."""

    def reject(self, delivery: Delivery) -> bool:
        """Refuse for good; False as for ack."""

    def give_back(self, delivery: Delivery) -> bool:
        """Back to the queue; False as for ack."""

    def expire(self, delivery: Delivery) -> bool:
        """The same, for nobody said anything in time."""


@dataclass(slots=True, eq=False)
class Lease:
    """One message held for a worker. `seconds` is its length, `due` its end on the loop's clock.

    `delivery` has the message's body until the answer is out.
    """

    number: int
    mq_uri: MqUri
    holder: Holder
    delivery: Delivery
    seconds: float
    due: float
    expires_at: float
    #: Of a Topic: the durable subscription.
    subscription: str | None = None
    #: Given back by its worker, and waiting for the delay to pass.
    returning: bool = False
    #: It holds no longer.
    over: bool = False

    @property
    def size(self) -> int:
        """Bytes of the body that is still here."""
        return len(self.delivery.message.body)

    def forget_message(self) -> None:
        """The answer is out: only what the broker has to be told is kept."""
        slim = replace(self.delivery.message, body=b"", headers={})
        self.delivery = replace(self.delivery, message=slim)


class Leases:
    """All leases of this process, with one timer for all of them. `ended` is told how each one ended."""

    def __init__(self, ended: Callable[[Lease, Ending], None]) -> None:
        self._ended = ended
        self._live: dict[int, Lease] = {}
        self._past: OrderedDict[int, Ending] = OrderedDict()
        #: When (loop time) to look at which lease; entries of leases that changed since are passed over.
        self._schedule: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        #: When it looks. Not asked of the handle: uvloop's has no time where that had passed already.
        self._looks_at = 0.0
        self._last = 0
        self._held: Counter[MqUri] = Counter()

    def __len__(self) -> int:
        return len(self._live)

    def of(self, mq_uri: MqUri) -> int:
        """Messages leased from a destination."""
        return self._held[mq_uri]

    def of_service(self, service: str) -> int:
        """Messages leased from all destinations of a service."""
        return sum(count for mq_uri, count in self._held.items() if mq_uri.service == service)

    def grant(
        self, mq_uri: MqUri, holder: Holder, delivery: Delivery, seconds: float, subscription: str | None = None
    ) -> Lease:
        """A new lease of `seconds` from now on."""
        self._last += 1
        lease = Lease(self._last, mq_uri, holder, delivery, seconds, 0.0, 0.0, subscription)
        self._live[lease.number] = lease
        self._held[mq_uri] += 1
        self._set(lease, seconds)
        return lease

    def find(self, mq_uri: MqUri, number: int) -> Lease | None:
        """The lease of this number where it still holds, and is of that destination."""
        lease = self._live.get(number)
        return lease if lease is not None and lease.mq_uri == mq_uri and not lease.returning else None

    # What a worker says.

    def ack(self, mq_uri: MqUri, number: int) -> Result:
        """The work is done: the message is acknowledged. Twice is done, too."""
        lease = self.find(mq_uri, number)
        if lease is None:
            return self._again(number, "acked")
        return self._settle(lease, "acked", lease.holder.ack(lease.delivery))

    def nack(self, mq_uri: MqUri, number: int, *, requeue: bool, delay: float) -> Result:
        """Not done: back to the queue after `delay` seconds, or, without `requeue`, refused for good."""
        lease = self.find(mq_uri, number)
        if lease is None:
            return self._again(number, "nacked" if requeue else "rejected")
        if not requeue:
            return self._settle(lease, "rejected", lease.holder.reject(lease.delivery))
        if not delay:
            return self._settle(lease, "nacked", lease.holder.give_back(lease.delivery))
        lease.returning = True
        self._set(lease, delay)
        return "done"

    def renew(self, lease: Lease, seconds: float) -> None:
        """It holds for `seconds` from now on."""
        lease.seconds = seconds
        self._set(lease, seconds)

    def _again(self, number: int, ending: Ending) -> Result:
        """An answer to a lease that holds no longer: done where it says what was already done."""
        lease = self._live.get(number)
        past = "nacked" if lease is not None and lease.returning else self._past.get(number)
        return "done" if past == ending else "expired"

    def _settle(self, lease: Lease, ending: Ending, taken: bool) -> Result:
        self._forget(lease, ending if taken else "lost")
        return "done" if taken else "expired"

    # What happens without a word of the worker.

    def give_back(self, leases: Iterable[Lease]) -> None:
        """Back to their queues, now: the client has gone."""
        for lease in list(leases):
            if lease.number in self._live:
                self._return(lease, "left")

    def void(self, lease: Lease, ending: Ending = "lost") -> None:
        """It holds no longer, and whoever holds the message sees to it; lost: the broker has it already."""
        if lease.number in self._live:
            self._forget(lease, ending)

    def close(self) -> None:
        """At shutdown: whoever holds the messages gives them back."""
        for lease in list(self._live.values()):
            self.void(lease)
        self._schedule.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _return(self, lease: Lease, ending: Ending) -> None:
        end = lease.holder.expire if ending == "expired" else lease.holder.give_back
        self._settle(lease, ending, end(lease.delivery))

    def _forget(self, lease: Lease, ending: Ending) -> None:
        del self._live[lease.number]
        lease.over = True
        self._held[lease.mq_uri] -= 1
        if not self._held[lease.mq_uri]:
            del self._held[lease.mq_uri]
        self._past[lease.number] = ending
        if len(self._past) > MAX_REMEMBERED:
            self._past.popitem(last=False)
        self._ended(lease, ending)

    # Time.

    def _set(self, lease: Lease, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        lease.due, lease.expires_at = loop.time() + seconds, time.time() + seconds
        heapq.heappush(self._schedule, (lease.due, lease.number))
        if len(self._schedule) > 2 * len(self._live) + _MAX_STALE:
            self._schedule = [(each.due, number) for number, each in self._live.items()]
            heapq.heapify(self._schedule)
        self._wind()

    def _wind(self) -> None:
        """Set the timer for the first entry."""
        if not self._schedule:
            return
        first = self._schedule[0][0]
        if self._timer is not None and not self._timer.cancelled():
            if self._looks_at <= first:
                return
            self._timer.cancel()
        self._looks_at = first
        self._timer = asyncio.get_running_loop().call_at(first, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._schedule and self._schedule[0][0] <= now:
            due, number = heapq.heappop(self._schedule)
            lease = self._live.get(number)
            if lease is not None and lease.due == due:
                self._return(lease, "nacked" if lease.returning else "expired")
        self._wind()
