"""Fan-out of one Topic: one upstream subscription, one ring, many readers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.config.settings import TopicSettings
from app.connectors.base import Delivery, Destination, MQConnector, Subscription
from app.domain.errors import BrokerUnavailable, GatewayError
from app.gateway.ring import Resume, Ring
from app.gateway.stream import Batch, Counts, Reader, Slow, StreamRequest
from app.wire import sse

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
        counts: Counts,
        on_gap: Callable[[str], None],
    ) -> None:
        self.destination = destination
        self.settings = settings
        self.counts = counts
        self.readers: set[TopicReader] = set()
        self._on_gap = on_gap
        self._connector = connector
        self._ring = self._new_ring()
        self._upstream: Subscription | None = None
        self._opening = asyncio.Lock()
        self._linger: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._live = False
        self._woken = False

    @property
    def is_idle(self) -> bool:
        """Nobody reads, nothing is subscribed: there is nothing here to keep."""
        return not self.readers and self._upstream is None and not self._opening.locked()

    def tell_gap(self, reason: str) -> None:
        """A reader was told of a gap."""
        self.counts.gaps += 1
        self._on_gap(reason)

    def _new_ring(self) -> Ring:
        return Ring(self.destination.uri, self.settings.ring_messages, self.settings.ring_bytes)

    @property
    def buffered(self) -> int:
        """Bytes the ring holds."""
        return self._ring.bytes

    # Readers.

    async def open(self, request: StreamRequest, timeout: float) -> TopicReader:
        """A new reader, once the broker took the subscription; raises what MQConnector.subscribe raises."""
        self._cancel_linger()
        try:
            await self._ensure_upstream(timeout)
        except BaseException:
            self._linger_if_idle()
            raise
        reader = TopicReader(self, self._ring, request)
        self.readers.add(reader)
        return reader

    async def _ensure_upstream(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout), self._opening:
                if self._upstream is None:
                    self._upstream = await self._connector.subscribe(
                        self.destination, self, acknowledge=False, prefetch=self.settings.prefetch, timeout=timeout
                    )
                    self._live = True
        except TimeoutError:
            raise BrokerUnavailable(f"{self.destination.uri} was not subscribed in time", retry_after=1) from None

    def leave(self, reader: TopicReader) -> None:
        self.readers.discard(reader)
        self._linger_if_idle()

    def _linger_if_idle(self) -> None:
        if not self.readers and not self.settings.keep and self._upstream is not None and self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self.settings.linger, self._close_if_idle)

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _close_if_idle(self) -> None:
        self._linger = None
        if not self.readers:
            self._closing = asyncio.get_running_loop().create_task(self._close_upstream())

    async def _close_upstream(self) -> None:
        async with self._opening:
            if self.readers or self._upstream is None:
                return
            upstream, self._upstream = self._upstream, None
            self._ring = self._new_ring()
            await upstream.close(CLOSE_DEADLINE)

    async def keep(self) -> None:
        """Subscribe before the first reader comes, as soon as the link allows; for `keep: true`."""
        while self._upstream is None:
            try:
                await self._ensure_upstream(_KEEP_RETRY * 10)
            except GatewayError as error:
                logger.info("%s: not subscribed yet: %s", self.destination.uri, error)
                await asyncio.sleep(_KEEP_RETRY)

    async def close(self) -> None:
        """At shutdown, after the readers are gone."""
        self._cancel_linger()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close(CLOSE_DEADLINE)

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        self._ring.append(delivery.message)
        self._wake_soon()

    def on_lost(self) -> None:
        if self._live:
            self._live = False
            self._ring.append_gap()
            self._wake_soon()

    def on_restored(self) -> None:
        self._live = True

    def on_cancelled(self, detail: str) -> None:
        logger.warning("%s: the broker ended the subscription: %s", self.destination.uri, detail)
        self._upstream = None
        self._live = False
        self._ring = self._new_ring()
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


class TopicReader(Reader):
    """A cursor into the ring."""

    def __init__(self, topic: Topic, ring: Ring, request: StreamRequest) -> None:
        super().__init__(topic.counts)
        self._topic = topic
        self._ring = ring
        self._format = request.format
        self._slow: Slow = request.slow or topic.settings.slow
        resume = _start(ring, request)
        self._cursor = resume.cursor
        self.opening = sse.position_only(ring.position(self._cursor))
        if resume.gap is not None:
            self.opening += self._gap(resume.gap, resume.missed)

    def _gap(self, reason: str, missed: int | None) -> bytes:
        self._topic.tell_gap(reason)
        position = self._ring.position(self._cursor)
        return sse.gap(str(self._ring.uri), reason, missed, position=position)

    def _has_events(self) -> bool:
        return self._cursor < self._ring.last

    def _take_events(self, max_bytes: int) -> Batch:
        gap = self._catch_up() if self._cursor + 1 < self._ring.oldest else b""
        if self._end == "slow":
            return Batch(gap, 0, "slow")
        piece = self._ring.read(self._cursor, self._format, max_bytes)
        self._cursor = piece.cursor
        for reason in piece.gaps:
            self._topic.tell_gap(reason)
        return Batch(gap + piece.data, piece.events)

    def _catch_up(self) -> bytes:
        """The ring went on without this reader: say so, and go where its policy says."""
        if self._slow == "disconnect":
            self._end = "slow"  # the position it has makes the gap known when it comes back
            return b""
        missed = self._ring.missed(self._cursor)
        oldest, newest = self._ring.oldest - 1, self._ring.last - 1
        skipped = newest - oldest if self._slow == "latest" else 0
        self._cursor = oldest + skipped
        return self._gap("slow", None if missed is None else missed + skipped)

    async def close(self) -> None:
        self._topic.leave(self)


def _start(ring: Ring, request: StreamRequest) -> Resume:
    if request.last_event_id:
        return ring.resume(request.last_event_id)
    return Resume(ring.last if request.start == "now" else ring.oldest - 1)
