"""A Topic with a RabbitMQ stream behind it: nothing is lost with the link, and positions are the stream's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from app.config.settings import TopicSettings
from app.connectors.base import Delivery, Destination, Listener, MQConnector, Subscription
from app.domain.stream import EMPTY_AFTER, LAST, StreamStart
from app.gateway.replays import Replays
from app.gateway.stream import Counts, StreamRequest
from app.gateway.stream_reader import StreamReader
from app.gateway.stream_ring import StreamRing
from app.gateway.topic import Topic
from app.gateway.topic_reader import TopicReader

#: Messages the broker may have on the way to the live ring; they are acknowledged as they come.
LIVE_PREFETCH = 500
#: Messages (count) on their way to a replay, at least; they are acknowledged when a reader took them.
REPLAY_PREFETCH = 100
#: Seconds without a message after which the latest messages of the stream have come.
QUIET = 0.05


class StreamTopic(Topic):
    """One live subscription feeds the ring; `replays` read what is older."""

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
        self.replays = Replays(destination.uri, self._subscribe_past, self.tell_size)
        self.is_cut_off = False
        #: Whether it is known where the stream stands.
        self._is_placed = False
        self._early: list[Delivery] = []
        self._came = asyncio.Event()
        super().__init__(destination, settings, connector, counts=counts, on_gap=on_gap, grew=grew)

    def _new_ring(self) -> StreamRing:
        self.live = StreamRing(self.destination.uri, self.settings.ring_messages, self.settings.ring_bytes)
        return self.live

    @property
    def is_idle(self) -> bool:
        return super().is_idle and self.replays.is_idle

    @property
    def buffered(self) -> int:
        return self.live.buffered + self.replays.buffered

    def give_way(self, wanted: int) -> int:
        freed = super().give_way(wanted)
        if freed < wanted:
            more = self.replays.give_way(wanted - freed)
            self._told_size -= more
            freed += more
        return freed

    # Subscriptions.

    async def _ask(self, timeout: float) -> Subscription:
        self._early.clear()
        self._came.clear()
        self.is_cut_off = False
        return await self._connector.subscribe(
            self.destination, self, acknowledge=True, prefetch=LIVE_PREFETCH, timeout=timeout, start=LAST
        )

    async def _subscribe_past(self, listener: Listener, start: StreamStart, timeout: float) -> Subscription:
        return await self._connector.subscribe(
            self.destination,
            listener,
            acknowledge=True,
            prefetch=max(REPLAY_PREFETCH, self.settings.prefetch),
            timeout=timeout,
            start=start,
        )

    async def _subscribe(self, timeout: float) -> None:
        await super()._subscribe(timeout)
        for delivery in self._early:
            self._ack(delivery)
        self._early.clear()
        self._is_placed = False

    async def _ensure_upstream(self, timeout: float) -> None:
        await super()._ensure_upstream(timeout)
        if not self._is_placed:  # also where whoever began to wait has gone
            await self._latest()
            self._is_placed = True

    async def _latest(self) -> None:
        """The latest messages tell where the stream stands, and they are past for whoever begins now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EMPTY_AFTER):
                await self._came.wait()
                while self._came.is_set():
                    self._came.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._came.wait(), QUIET)

    def _new_reader(self, request: StreamRequest) -> TopicReader:
        return StreamReader(self, request)

    def stop(self) -> None:
        self.replays.stop()
        super().stop()

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        if delivery.missing == "restart":  # offsets begin anew: no position of before means anything
            self._end_life()
        self.live.add(delivery)
        self._ack(delivery)
        self._came.set()
        self.tell_size()
        self._wake_soon()

    def _ack(self, delivery: Delivery) -> None:
        """It is in the ring: the broker may send one more."""
        if self._upstream is None:
            self._early.append(delivery)
        else:
            self._upstream.ack(delivery)

    def on_lost(self) -> None:
        self.is_cut_off = True
        self._early.clear()

    def on_restored(self) -> None:
        """What was published meanwhile comes now."""
        self.is_cut_off = False
