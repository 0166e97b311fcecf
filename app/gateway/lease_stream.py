"""A stream of a Queue whose events are leases: the client says itself when it is done with each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

from app.connectors.base import Delivery, Destination, MQConnector
from app.gateway.lane import Lane
from app.gateway.leases import Lease
from app.gateway.queue_stream import MEMORY, QueueStream
from app.gateway.stream import Batch, Counts, Format, StreamLease
from app.gateway.takings import Takings
from app.wire import sse


class LeaseReader(QueueStream[tuple[Lane, Delivery]]):
    """As many lanes as the destination's prefetch: so many messages are here or leased, and not one more.

    A client that lets a lease run out gets only so many more as it answers; one that answers nothing loses its stream.
    """

    def __init__(
        self,
        form: Format,
        lease: StreamLease,
        takings: Takings,
        on_close: Callable[[LeaseReader], None],
        grew: Callable[[int], None],
    ) -> None:
        super().__init__(form, grew)
        self._lease = lease
        self._takings = takings
        self._on_close = on_close
        #: With the number of their leases.
        self._lanes: dict[Lane, int] = {}
        self._leased = 0
        self._claimed = ExitStack()
        self._handing = 0
        self._letting_go: set[asyncio.Task[None]] = set()

    async def open(
        self, destination: Destination, connector: MQConnector, counts: Callable[[], Counts], timeout: float
    ) -> None:
        """Subscribe; raises Overloaded, and what MQConnector.subscribe raises."""
        prefetch = destination.settings.prefetch
        self._destination = destination
        self._claimed.enter_context(self._takings.claim(prefetch))
        self._lanes = {Lane(self, stays=True): 0 for _ in range(prefetch)}
        first, *others = self._lanes
        try:
            # The first alone: where the broker refuses it, and ends the connection for it, once is enough.
            await first.open(destination, connector, timeout)
            opening = [lane.open(destination, connector, timeout) for lane in others]
            _raise_first(await asyncio.gather(*opening, return_exceptions=True))
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self.close()))
            raise
        self._counts = counts()
        whose = {} if self._lease.mq_uri is None else {"mq_uri": self._lease.mq_uri}
        data = {"ack_url": self._lease.ack_url, "prefetch": prefetch, "lease_seconds": self._lease.seconds}
        self.opening = sse.json_event("lease", {**data, **whose})
        for lane in self._lanes:
            lane.release_early()

    def give_way(self) -> int:
        before = self.buffered
        busy = self._handing or any(lane.leased for lane in self._lanes)
        self._keep(lambda at, _lane, _token: at == 0 and not busy)
        self.end(MEMORY)
        return before - self.buffered

    def _keep(self, wanted: Callable[[int, Lane, str], bool]) -> None:
        """Of what waits only this, by place, lane and token."""
        kept = deque(
            (lane, delivery) for at, (lane, delivery) in enumerate(self._waiting) if wanted(at, lane, delivery.token)
        )
        freed = _size(self._waiting) - _size(kept)
        self._waiting = kept
        self._shift(-freed)

    # What lanes tell.

    def arrived(self, lane: Lane, delivery: Delivery) -> None:
        if lane in self._lanes and not lane.returns:  # one that ends gives it back
            self._admit((lane, delivery), len(delivery.message.body))

    def settled(self, lane: Lane) -> None:
        # Answered: the broker sends the next one by itself. Not answered in time: whoever answers is to get it. A
        # client that is frozen would otherwise be given it again and again, for it has more lanes than others.
        self._recount(lane)
        if lane.returns:
            for idle in [lane for lane in self._lanes if lane.is_idle]:
                self._let_go(idle)
            if not self._lanes:
                self.end("slow")
        self.wake()

    def _has_events(self) -> bool:
        # Lanes over several brokers have a message of each: what is beyond the prefetch waits for an answer.
        return super()._has_events() and self._leased < self._destination.settings.prefetch

    def _recount(self, lane: Lane) -> None:
        if lane in self._lanes:
            self._leased += len(lane.leased) - self._lanes[lane]
            self._lanes[lane] = len(lane.leased)

    def _let_go(self, lane: Lane) -> None:
        del self._lanes[lane]
        self._keep(lambda _at, other, _token: other is not lane)
        task = asyncio.get_running_loop().create_task(lane.close())
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    def withdrawn(self, lane: Lane, token: str) -> None:
        self._keep(lambda _at, other, each: (other, each) != (lane, token))
        lease = lane.leased.pop(token, None)
        if lease is not None:
            self._takings.leases.void(lease)
        self.settled(lane)

    def ended(self, lane: Lane, detail: str | None) -> None:
        self._keep(lambda _at, other, _token: other is not lane)
        for lease in lane.forfeit():
            self._takings.leases.void(lease)
        self._recount(lane)
        if detail is not None:
            self.end("cancelled")

    # What the writer of the stream calls.

    def _hand(self, came: tuple[Lane, Delivery]) -> bytes:
        lane, delivery = came
        self._handing += len(delivery.message.body)
        return sse.FORMATS[self._format](delivery.message, self._grant(lane, delivery))

    def _grant(self, lane: Lane, delivery: Delivery) -> str:
        lease: Lease = self._takings.leases.grant(self._destination.uri, lane, delivery, self._lease.seconds)
        lane.leased[delivery.token] = lease
        self._recount(lane)
        lease.forget_message()  # what is on its way to the client is counted here
        return self._takings.token(lease)

    def handed_over(self, batch: Batch) -> None:
        super().handed_over(batch)
        handed, self._handing = self._handing, 0
        self._shift(-handed)

    async def close(self) -> None:
        self._on_close(self)
        lanes, self._lanes = self._lanes, {}
        self._leased = 0
        self._keep(lambda _at, _lane, _token: False)
        handing, self._handing = self._handing, 0
        self._shift(-handing)
        for lane in lanes:
            for lease in lane.forfeit():
                self._takings.leases.void(lease, "left")
        await asyncio.gather(*self._letting_go, *(lane.close() for lane in lanes))
        self._claimed.close()


def _raise_first(results: list[BaseException | None]) -> None:
    """Only when all have ended, so that none opens behind our back."""
    for error in results:
        if error is not None:
            raise error


def _size(waiting: deque[tuple[Lane, Delivery]]) -> int:
    return sum(len(delivery.message.body) for _, delivery in waiting)
