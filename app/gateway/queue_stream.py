"""What all streams of a Queue share: what waits is counted, and too much of it ends the stream."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from app.gateway.stream import Batch, Counts, Format, Reader

#: Why a stream ends that holds too much.
MEMORY = "memory"

T = TypeVar("T")


class QueueStream(Reader, Generic[T]):
    """`grew` is told of every change of `buffered`, in bytes."""

    def __init__(self, form: Format, grew: Callable[[int], None]) -> None:
        super().__init__(Counts())
        #: Bytes waiting here or on their way into the socket.
        self.buffered = 0
        self._format = form
        self._grew = grew
        self._waiting: deque[T] = deque()

    @abstractmethod
    def give_way(self) -> int:
        """Too much is held: the stream ends, and what is here goes back when it closes; the bytes freed.

        Where nothing is with the client one message stays, for a queue of large ones must get somewhere.
        """

    def _shift(self, size: int) -> None:
        self.buffered += size
        self._grew(size)

    def _admit(self, came: T, size: int) -> None:
        """It came, and waits; once the stream ends it goes back with the others."""
        if self._end is not None:
            return
        self._waiting.append(came)
        self.wake()
        self._shift(size)  # may make this very stream end

    def _has_events(self) -> bool:
        return bool(self._waiting) and self._end in {None, MEMORY}

    def _take_events(self, max_bytes: int) -> Batch:
        parts: list[bytes] = []
        size = 0
        # Once the stream ends nothing more is handed out: it goes back to the queue.
        while self._has_events() and (not parts or size < max_bytes):
            parts.append(self._hand(self._waiting.popleft()))
            size += len(parts[-1])
        return Batch(b"".join(parts), len(parts))

    @abstractmethod
    def _hand(self, came: T) -> bytes:
        """Its event; from now on it is on its way into the socket."""
