"""A stream of a Queue: one consumer among others. Acked after the event is in the socket, else given back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from app.connectors.base import Delivery, Subscription
from app.gateway.stream import Batch, Counts, Format, Reader
from app.wire import sse

#: Seconds for giving back and UNSUBSCRIBE.
CLOSE_DEADLINE = 5.0
#: Why a stream ends that holds too much.
MEMORY = "memory"


class QueueReader(Reader):
    """At most `prefetch` messages are here; the broker sends the next when one was acked.

    `grew` is told of every change of `buffered`, in bytes.
    """

    def __init__(self, form: Format, on_close: Callable[[QueueReader], None], grew: Callable[[int], None]) -> None:
        super().__init__(Counts())
        #: Bytes waiting here or on their way into the socket.
        self.buffered = 0
        self._format = form
        self._on_close = on_close
        self._grew = grew
        self._waiting: deque[Delivery] = deque()
        self._handing: list[Delivery] = []
        self._subscription: Subscription | None = None

    def attach(self, subscription: Subscription, counts: Counts) -> None:
        """The broker took the subscription; from now on the destination's `counts` are added to."""
        self._subscription = subscription
        self._counts = counts

    def give_way(self) -> int:
        """Too much is held: the stream ends, and what is here goes back when it closes; the bytes freed.

        Where nothing is on its way to the client one message stays, for a queue of large ones must get somewhere.
        """
        before = self.buffered
        self._keep(list(self._waiting)[: 0 if self._handing else 1])
        self.end(MEMORY)
        return before - self.buffered

    def _keep(self, waiting: Iterable[Delivery]) -> None:
        """Of what waits only this."""
        self._waiting = deque(waiting)
        self._shift(_size(self._waiting) + _size(self._handing) - self.buffered)

    def _shift(self, size: int) -> None:
        self.buffered += size
        self._grew(size)

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        if self._end is not None:
            return  # goes back with the others
        self._waiting.append(delivery)
        self.wake()
        self._shift(len(delivery.message.body))  # may make this very stream end

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

    def _has_events(self) -> bool:
        return bool(self._waiting) and self._end in {None, MEMORY}

    def _take_events(self, max_bytes: int) -> Batch:
        parts: list[bytes] = []
        size = 0
        self._handing = []
        # Once the stream ends nothing more is handed out: it goes back to the queue.
        while self._has_events() and (not parts or size < max_bytes):
            delivery = self._waiting.popleft()
            self._handing.append(delivery)
            parts.append(self._encode(delivery))
            size += len(parts[-1])
        return Batch(b"".join(parts), len(parts))

    def _encode(self, delivery: Delivery) -> bytes:
        return sse.FORMATS[self._format](delivery.message, None)

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
