"""A stream of a Queue: one consumer among others. Acked after the event is in the socket, else given back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from app.connectors.base import Delivery, Subscription
from app.gateway.queue_stream import MEMORY, QueueStream
from app.gateway.stream import Batch, Counts, Format
from app.wire import sse

#: Seconds for giving back and UNSUBSCRIBE.
CLOSE_DEADLINE = 5.0


class QueueReader(QueueStream[Delivery]):
    """At most `prefetch` messages are here; the broker sends the next when one was acked."""

    def __init__(self, form: Format, on_close: Callable[[QueueReader], None], grew: Callable[[int], None]) -> None:
        super().__init__(form, grew)
        self._on_close = on_close
        self._handing: list[Delivery] = []
        self._subscription: Subscription | None = None

    def attach(self, subscription: Subscription, counts: Counts) -> None:
        """The broker took the subscription; from now on the destination's `counts` are added to."""
        self._subscription = subscription
        self._counts = counts

    def give_way(self) -> int:
        before = self.buffered
        self._keep(list(self._waiting)[: 0 if self._handing else 1])
        self.end(MEMORY)
        return before - self.buffered

    def _keep(self, waiting: Iterable[Delivery]) -> None:
        """Of what waits only this."""
        self._waiting = deque(waiting)
        self._shift(_size(self._waiting) + _size(self._handing) - self.buffered)

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        self._admit(delivery, len(delivery.message.body))

    def on_lost(self) -> None:
        self._keep(())  # the broker gives them to somebody again

    def on_restored(self) -> None:
        """Nothing was missed: what was not acked comes again."""

    def on_withdrawn(self, token: str) -> None:
        # What is on its way into the socket comes again too, marked redelivered: at least once, like any lost ack.
        self._keep([delivery for delivery in self._waiting if delivery.token != token])

    def on_cancelled(self, detail: str) -> None:
        self._subscription = None
        self._keep(())
        self.end("cancelled")

    # What the writer of the stream calls.

    def _take_events(self, max_bytes: int) -> Batch:
        self._handing = []
        return super()._take_events(max_bytes)

    def _hand(self, came: Delivery) -> bytes:
        self._handing.append(came)
        return sse.FORMATS[self._format](came.message, None)

    def handed_over(self, batch: Batch) -> None:
        super().handed_over(batch)
        handed, self._handing = self._handing, []
        self._shift(-_size(handed))
        if self._subscription is not None:
            for delivery in handed:
                self._subscription.ack(delivery)

    async def close(self) -> None:
        self._on_close(self)
        subscription, self._subscription = self._subscription, None
        self._handing = []
        self._keep(())
        if subscription is not None:
            await subscription.close(CLOSE_DEADLINE)


def _size(deliveries: Iterable[Delivery]) -> int:
    return sum(len(delivery.message.body) for delivery in deliveries)
