"""The bytes this process may hold for others: bodies on their way, rings, parked messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.domain.errors import Overloaded


class Budget:
    """Bodies in flight are reserved; what rings and queues hold is asked for when it matters."""

    def __init__(self, limit: int, held_elsewhere: Callable[[], int]) -> None:
        self._limit = limit
        self._held_elsewhere = held_elsewhere
        self.reserved = 0

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold `size` bytes for the length of the block; raises Overloaded where they are not to be had."""
        if self.reserved + size + self._held_elsewhere() > self._limit:
            raise Overloaded(f"more than {self._limit} bytes are in flight and buffered", retry_after=1)
        self.reserved += size
        try:
            yield
        finally:
            self.reserved -= size
