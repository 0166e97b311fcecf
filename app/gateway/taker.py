"""All takes from one Queue or durable subscription, and the lanes that bring them messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from itertools import islice
from typing import Any

from app.connectors.base import Delivery, Destination, MQConnector
from app.domain.errors import BrokerRejected, GatewayError, Internal, Overloaded
from app.gateway.lane import Lane
from app.gateway.leases import Lease
from app.gateway.parked import Parked
from app.gateway.take import Take
from app.gateway.terms import Terms

logger = logging.getLogger("mq_gateway.leases")

#: Seconds for the broker to take a subscription.
OPEN_SECONDS = 5.0
#: Lanes that are opened when one is full, however much is asked for; then as many again whenever all of them are full.
WAVE = 8
#: Seconds between two looks for what has waited too long.
_LOOK_EVERY = 0.05


class Taker:
    """Deals out what comes; opens lanes while somebody waits, closes them `linger` after they were of use."""

    def __init__(self, destination: Destination, connector: MQConnector, terms: Terms) -> None:
        self.destination = destination
        self.connector = connector
        self.lanes: dict[Lane, None] = {}
        self._terms = terms
        self._free: dict[Lane, None] = {}
        self._parked = Parked()
        self._waiting: dict[Take, None] = {}
        self._opening = self._ending = 0
        self._asked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        #: Lanes that are opened or closed.
        self.chores: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Nobody waits, nothing is held or being done."""
        return not (self.lanes or self._waiting or self.chores)

    async def take(self, most: int, seconds: float, wait: float) -> list[Lease]:
        """Up to `most` messages leased for `seconds`; none where none came within about `wait` seconds.

        Raises Unavailable, BrokerRejected, ConfirmTimeout where the broker did not let us.
        """
        take = Take(most, seconds, self._now() + wait)
        self._waiting[take] = None
        try:
            self._deal()
            self._grow()
            await self._gather(take)
        except BaseException:
            del self._waiting[take]
            self._terms.leases.give_back(take.leases)
            raise
        finally:
            self._waiting.pop(take, None)
            self._left(take)
        return take.leases

    async def _gather(self, take: Take) -> None:
        while True:
            take.drop_lost()
            take.check()
            until = take.until(self._asked_at, opening=self._is_growing)
            if self._stopped or take.lacks <= 0 or until <= self._now():
                return
            take.changed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await take.changed.wait()
            except TimeoutError:
                pass  # looked at above: something may have begun to be opened meanwhile

    def _deal(self) -> None:
        now = self._now()
        for take in self._waiting:
            while self._parked and take.lacks > 0:
                lane, delivery = self._parked.take()
                uri, subscription = self.destination.uri, self.destination.subscription
                lease = self._terms.leases.grant(uri, lane, delivery, take.seconds, subscription)
                lane.leased[delivery.token] = lease
                take.add(lease, lane.since, now)

    def _left(self, take: Take) -> None:
        """Lanes that waited for this take wait a moment longer: workers come again."""
        now = self._now()
        for lane in islice(self._free, take.most):
            lane.since = now
        self._wind()

    def _wake(self) -> None:
        for take in self._waiting:
            take.changed.set()

    # Lanes.

    @property
    def _surplus(self) -> int:
        return len(self._free) + self._opening - sum(take.lacks for take in self._waiting)

    @property
    def _is_taken(self) -> bool:
        """There may be one lane only, and there is one, or its end is not confirmed."""
        return bool(self.lanes or self._ending) and not self.connector.is_shared(self.destination)

    @property
    def _is_growing(self) -> bool:
        """Lanes are being opened, or one will be as soon as another has ended."""
        return self._opening > 0 or (self._ending > 0 and self._is_taken)

    def _grow(self) -> None:
        """Where somebody waits and no lane does."""
        if self._stopped or self._free or self._opening or self._surplus >= 0 or self._is_taken:
            return
        # The first alone: where the broker refuses it, and ends the connection for it, once is enough.
        wave = max(WAVE, len(self.lanes)) if self.lanes else 1
        wanted = min(-self._surplus, wave, self._terms.room())
        if wanted <= 0:
            self._fail(Overloaded("as many messages are leased as this gateway holds", retry_after=1))
        for _ in range(wanted):
            lane = Lane(self)
            self.lanes[lane] = None
            self._opening += 1
            self._chore(self._open(lane))

    async def _open(self, lane: Lane) -> None:
        failure: GatewayError | None = None
        try:
            await lane.open(self.destination, self.connector, OPEN_SECONDS)
        except GatewayError as error:
            failure = error
        except Exception:  # a connector's defect must not leave anybody waiting
            logger.exception("%s: subscribing failed", self.destination.uri)
            failure = Internal("the connector failed to subscribe; the log says why")
        finally:
            self._opening -= 1
        self._opened(lane, failure)

    def _opened(self, lane: Lane, failure: GatewayError | None) -> None:
        if failure is not None:
            self.lanes.pop(lane, None)
            self._fail(failure)
        elif lane not in self.lanes or self._stopped:  # lost, or stopped, within the same turn of the loop
            self._close(lane)
        else:
            self._await_message(lane)
            lane.release_early()
        self._wake()

    def _fail(self, error: GatewayError) -> None:
        """No message comes to those who wait, unless on another lane."""
        if not (self._free or self._opening):
            for take in self._waiting:
                take.fail(error)

    def _await_message(self, lane: Lane) -> None:
        lane.since = self._asked_at = self._now()
        self._free[lane] = None
        self._wind()

    def _close(self, lane: Lane) -> None:
        """What it holds without a lease goes back."""
        self.lanes.pop(lane, None)
        self._free.pop(lane, None)
        self._shift(-self._parked.drop_all(lane))
        self._ending += 1
        self._chore(self._end(lane))

    async def _end(self, lane: Lane) -> None:
        try:
            await lane.close()
        finally:
            self._ending -= 1
            self._grow()
            self._wake()

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)

    def _shift(self, size: int) -> None:
        self._terms.grew(self.destination.uri.service, size)

    # What lanes tell.

    def arrived(self, lane: Lane, delivery: Delivery) -> None:
        if lane not in self.lanes:  # being closed: it goes back with the lane
            return
        self._free.pop(lane, None)
        lane.since = self._now()
        self._parked.put(lane, delivery)
        self._deal()
        self._grow()
        self._wind()
        self._shift(len(delivery.message.body))  # may make this very message go back

    def settled(self, lane: Lane) -> None:
        if lane not in self.lanes:
            return
        if lane.is_idle and (lane.returns or self._stopped):
            self._close(lane)
            self._grow()
        elif lane.is_free:
            self._await_message(lane)

    def withdrawn(self, lane: Lane, token: str) -> None:
        self._shift(-self._parked.drop(lane, token))
        lease = lane.leased.pop(token, None)
        if lease is not None:
            self._terms.leases.void(lease)
        self.settled(lane)

    def ended(self, lane: Lane, detail: str | None) -> None:
        for lease in lane.forfeit():
            self._terms.leases.void(lease)
        self._close(lane)
        for take in self._waiting:
            take.drop_lost()
        if detail is None:
            self._grow()
        else:
            logger.warning("%s: the broker ended a subscription: %s", self.destination.uri, detail)
            self._fail(BrokerRejected(f"the broker ended the subscription: {detail}"))
        self._wake()

    # Letting go.

    def _wind(self) -> None:
        if self._timer is None and any(lane.is_idle or lane.parked for lane in self.lanes):
            self._timer = asyncio.get_running_loop().call_later(self._terms.linger, self._look)

    def _look(self) -> None:
        """Give back what has waited too long, and end lanes that nobody needs."""
        self._timer = None
        now, surplus = self._now(), self._surplus
        due: list[float] = []
        for lane in list(self.lanes):
            end = lane.since + self._terms.linger
            if not (lane.is_idle or lane.parked):
                continue
            if end > now + _LOOK_EVERY / 2:
                due.append(end)
            elif not lane.is_idle:
                self._let_go(lane)
            elif lane.parked or (lane in self._free and surplus > 0):
                surplus -= not lane.parked
                self._close(lane)
        if due:
            self._timer = asyncio.get_running_loop().call_at(max(min(due), now + _LOOK_EVERY), self._look)

    def _let_go(self, lane: Lane) -> int:
        """Give back what is parked behind leases, as over several brokers; the bytes freed."""
        freed = self._parked.let_go(lane)
        self._shift(-freed)
        return freed

    def give_way(self, wanted: int) -> int:
        """Let messages nobody has taken go back, the largest first, for `wanted` bytes; the bytes freed."""
        freed = 0
        for lane, size in self._parked.largest():
            if freed >= wanted:
                break
            if lane.is_idle:
                self._close(lane)
                freed += size
            else:
                freed += self._let_go(lane)
        return freed

    def stop(self) -> None:
        """Nobody waits any longer, and what nobody has taken goes back; leases hold until they end."""
        self._stopped = True
        self._wake()
        for lane in [lane for lane in self.lanes if lane.is_idle and (lane.is_free or lane.parked)]:
            self._close(lane)  # not what is still being opened

    def retire(self) -> None:
        """Its configuration is gone: leases, too, end here."""
        self.stop()
        for lane in [lane for lane in self.lanes if lane.leased]:
            for lease in lane.forfeit():
                self._terms.leases.void(lease)
            self._close(lane)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
