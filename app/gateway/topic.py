"""Fan-out of one Topic: one upstream subscription, one ring, many readers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.config.settings import TopicSettings
from app.connectors.base import Delivery, Destination, MQConnector, Subscription
from app.domain.errors import BrokerRejected, BrokerUnavailable, GatewayError
from app.gateway.ring import Ring
from app.gateway.stream import Counts, StreamRequest
from app.gateway.topic_reader import TopicReader

logger = logging.getLogger("mq_gateway.streams")

#: Seconds for UNSUBSCRIBE when nobody listens any more.
CLOSE_DEADLINE = 5.0
#: Seconds between attempts to subscribe where the configuration says `keep`.
_KEEP_RETRY = 1.0


class Topic:
    """The Listener behind all streams of one Topic. The first reader opens it, `linger` after the last it closes."""

    def __init__(
        self,
        destination: Destination,
        settings: TopicSettings,
        connector: MQConnector,
        *,
        counts: Callable[[], Counts],
        on_gap: Callable[[str], None],
        grew: Callable[[int], None],
    ) -> None:
        self.destination = destination
        self.settings = settings
        self.counts = counts
        self.readers: set[TopicReader] = set()
        self._on_gap = on_gap
        self._grew = grew
        self._told_size = 0
        self._connector = connector
        self._ring = self._new_ring()
        self._upstream: Subscription | None = None
        self._opening = asyncio.Lock()
        self._openers = 0
        self._cancelled: str | None = None
        self._gone = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._retired = False
        #: The link was lost, and the ring does not say so yet.
        self._untold_loss = False
        self._woken = False

    @property
    def is_idle(self) -> bool:
        """Nobody reads or is about to, nothing is subscribed or to be kept: there is nothing here."""
        return not (self.readers or self._openers or self._upstream or self._opening.locked() or self._is_kept)

    @property
    def _is_kept(self) -> bool:
        return self.settings.keep and not self._retired

    def tell_gap(self, reason: str) -> None:
        """A reader was told of a gap."""
        self.counts().gaps += 1
        self._on_gap(reason)

    def _new_ring(self) -> Ring:
        return Ring(self.destination.uri, self.settings.ring_messages, self.settings.ring_bytes)

    @property
    def buffered(self) -> int:
        """Bytes the ring holds."""
        return self._ring.buffered

    def give_way(self, wanted: int) -> int:
        """Let the ring's oldest events go, `wanted` bytes of them if it has as many; the bytes freed."""
        freed = self._ring.give_way(wanted)
        self._told_size -= freed  # who asked knows
        return freed

    def tell_size(self) -> None:
        """The ring may have changed: a message came, or was encoded for somebody."""
        size = self.buffered
        if size != self._told_size:
            grown, self._told_size = size - self._told_size, size
            self._grew(grown)

    def _begin_anew(self) -> None:
        self._ring = self._new_ring()
        self.tell_size()

    # Readers.

    async def open(self, request: StreamRequest, timeout: float) -> TopicReader:
        """A new reader, once the broker took the subscription; raises what MQConnector.subscribe raises."""
        self._cancel_linger()
        self._openers += 1
        try:
            await self._ensure_upstream(timeout)
            reader = self._new_reader(request)
            self.readers.add(reader)
            if self._retired:
                reader.end("reload")
        finally:
            self._openers -= 1
            self._linger_if_idle()
        return reader

    def _new_reader(self, request: StreamRequest) -> TopicReader:
        return TopicReader(self, self._ring, request)

    async def _ensure_upstream(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout), self._opening:
                if self._upstream is None:
                    await self._subscribe(timeout)
        except TimeoutError:
            raise BrokerUnavailable(f"{self.destination.uri} was not subscribed in time", retry_after=1) from None

    async def _subscribe(self, timeout: float) -> None:
        self._cancelled = None
        self._untold_loss = False
        self._gone.clear()
        upstream = await self._ask(timeout)
        if self._is_cancelled:  # taken and ended within one turn of the loop
            await upstream.close(CLOSE_DEADLINE)
            raise BrokerRejected(f"the broker ended the subscription: {self._cancelled}")
        self._upstream = upstream

    @property
    def _is_cancelled(self) -> bool:
        return self._cancelled is not None

    async def _ask(self, timeout: float) -> Subscription:
        return await self._connector.subscribe(
            self.destination, self, acknowledge=False, prefetch=self.settings.prefetch, timeout=timeout
        )

    def leave(self, reader: TopicReader) -> None:
        self.readers.discard(reader)
        self._linger_if_idle()

    def _linger_if_idle(self) -> None:
        idle = not (self.readers or self._openers or self._is_kept)
        if idle and self._upstream is not None and self._linger is None:
            linger = 0.0 if self._retired else self.settings.linger
            self._linger = asyncio.get_running_loop().call_later(linger, self._close_if_idle)

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _close_if_idle(self) -> None:
        self._linger = None
        if not self.readers and not self._openers:
            self._closing = asyncio.get_running_loop().create_task(self._close_upstream())

    async def _close_upstream(self) -> None:
        async with self._opening:
            if self.readers or self._openers or self._upstream is None:
                return
            upstream, self._upstream = self._upstream, None
            try:
                await upstream.close(CLOSE_DEADLINE)
            finally:
                self._begin_anew()  # whatever still came in between belongs to no reader

    async def keep(self) -> None:
        """Subscribe before the first reader comes, and again whenever the broker ends it; for `keep: true`."""
        while True:
            try:
                await self._ensure_upstream(_KEEP_RETRY * 10)
                await self._gone.wait()
            except GatewayError as error:
                logger.info("%s: not subscribed yet: %s", self.destination.uri, error)
            await asyncio.sleep(_KEEP_RETRY)

    def retire(self) -> None:
        """The configuration has another idea of this Topic, or none: readers end, with the last the subscription."""
        self._retired = True
        self._cancel_linger()
        for reader in list(self.readers):
            reader.end("reload")
        self._linger_if_idle()

    def stop(self) -> None:
        """At shutdown: nothing is unsubscribed any more, the end of the connection does that for all Topics."""
        self._cancel_linger()
        self._upstream = None
        if self._closing is not None:
            self._closing.cancel()

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        self._tell_loss()  # the first of a new connection may come before on_restored
        self._ring.append(delivery.message)
        self.tell_size()
        self._wake_soon()

    def on_lost(self) -> None:
        # Told when the subscription stands again: who opens until then misses something too, and who fetches
        # the present state when told must not miss what is published between the two.
        self._untold_loss = True

    def on_restored(self) -> None:
        self._tell_loss()

    def _tell_loss(self) -> None:
        """Between the last message before a loss and the first after it: one entry, however often it was lost."""
        if self._untold_loss:
            self._untold_loss = False
            self._ring.append_gap()
            self._wake_soon()

    def on_withdrawn(self, token: str) -> None:
        """A plain Topic has no acks."""

    def on_cancelled(self, detail: str) -> None:
        logger.warning("%s: the broker ended the subscription: %s", self.destination.uri, detail)
        self._upstream = None
        self._cancelled = detail
        self._gone.set()
        self._untold_loss = False
        self._end_life()

    def _end_life(self) -> None:
        """What follows has nothing to do with what was: readers come back, and are told."""
        self._begin_anew()
        for reader in list(self.readers):
            reader.end("cancelled")

    def _wake_soon(self) -> None:
        # Once per turn of the loop: all frames of one read are in the ring when the readers run.
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._wake_all)

    def _wake_all(self) -> None:
        self._woken = False
        for reader in self.readers:
            reader.wake()
