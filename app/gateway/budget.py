"""The bytes this process may hold for others: bodies on their way, rings, parked messages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from app.domain.errors import Overloaded

#: Seconds for which what is held elsewhere is taken as known: counting goes through every ring and reader.
_KNOWN_FOR = 0.1
#: Bytes that rings may grow before it is looked whether they have to give way.
_LOOK_EVERY = 65_536
#: When they have to, they free this part of the limit more, so that it is not soon asked for again.
_SPARE_PART = 64
#: A service may hold so many times what is left free (a dynamic threshold): one whose broker takes nothing ends at
#: four fifths of all, two such at four ninths each, and something is left for the others.
_SHARE = 4


def _nothing(_wanted: int) -> None:
    """Where nobody can give way."""


class Held:
    """Bytes of one holder, who costs the same however many pieces they come in; `size` is their sum."""

    __slots__ = ("_give_back", "_take", "size")

    def __init__(self, take: Callable[[int], None], give_back: Callable[[int], None]) -> None:
        self._take = take
        self._give_back = give_back
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes more; raises Overloaded where they are not to be had, and holds on to the others."""
        self._take(size)
        self.size += size

    def release(self) -> None:
        """Hold nothing any more."""
        size, self.size = self.size, 0
        self._give_back(size)


class Budget:
    """Bodies in flight are reserved; rings and queues are counted anew from time to time, and before a refusal.

    `give_way` is asked to free that many bytes elsewhere before anything is refused, and when what comes from brokers
    fills rings and Queue streams beyond the limit.
    """

    def __init__(
        self, limit: int, held_elsewhere: Callable[[], int], give_way: Callable[[int], None] = _nothing
    ) -> None:
        self._limit = limit
        self._held_elsewhere = held_elsewhere
        self._give_way = give_way
        self._held = 0
        self._known_until = 0.0
        self._grown = 0
        self._shares: defaultdict[str, int] = defaultdict(int)
        self.reserved = 0

    @contextmanager
    def reserve(self, service: str, size: int) -> Iterator[None]:
        """Hold `size` bytes for the length of the block; raises Overloaded where they are not to be had."""
        self._take(service, size)
        try:
            yield
        finally:
            self._give_back(service, size)

    @contextmanager
    def holding(self, service: str) -> Iterator[Held]:
        """Hold what grows piece by piece; all of it is given back at the end of the block."""
        held = Held(partial(self._take, service), partial(self._give_back, service))
        try:
            yield held
        finally:
            held.release()

    def _give_back(self, service: str, size: int) -> None:
        self.reserved -= size
        self._shares[service] -= size
        if not self._shares[service]:
            del self._shares[service]

    def grew(self, size: int) -> None:
        """A ring or a stream holds `size` bytes more, or less where negative; they give way where all is too much."""
        self._held += size
        self._grown = max(0, self._grown + size)
        if self._grown >= _LOOK_EVERY:
            self._grown = 0
            self._know()
            if self._lacking(0) > 0:
                self._make_spare_place()

    def _make_spare_place(self) -> None:
        self._count()
        if self._lacking(0) > 0:
            self._give_way(self._lacking(0) + self._limit // _SPARE_PART)
            self._count()

    def _take(self, service: str, size: int) -> None:
        self._know()
        share = self._shares.get(service, 0)
        # What has to be left free beside it; nothing beside the first, which is nobody's fault.
        free = -(-(share + size) // _SHARE) if share else 0
        if self._lacking(size + free) > 0:
            self._make_place(size + free)
        if self._lacking(size) > 0:
            raise Overloaded(f"more than {self._limit} bytes are in flight and buffered", retry_after=1)
        if self._lacking(size + free) > 0:
            raise Overloaded(f"publishes to {service} hold {share} bytes, their share of the memory", retry_after=1)
        self._shares[service] = share + size
        self.reserved += size

    def _lacking(self, size: int) -> int:
        return self.reserved + size + self._held - self._limit

    def _know(self) -> None:
        if time.monotonic() >= self._known_until:
            self._count()

    def _count(self) -> None:
        self._held = self._held_elsewhere()
        self._known_until = time.monotonic() + _KNOWN_FOR

    def _make_place(self, size: int) -> None:
        self._count()
        # What only the rings' end would free is not asked of them.
        if 0 < self._lacking(size) <= self._held:
            self._give_way(self._lacking(size))
            self._count()
