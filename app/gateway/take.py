"""One request for messages, from its beginning to its answer."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from app.domain.errors import GatewayError
from app.gateway.leases import Lease

#: Bytes of bodies in one answer; the message that crosses them is the last.
MAX_BYTES = 16 << 20
#: Seconds without a further message after which what is here is the answer …
QUIET = 0.05
#: … and seconds after the first message for all of them together.
GATHER = 0.5
#: Seconds after which a lane that waits for a message shows that the queue is empty.
SETTLE = 0.2
#: Seconds that may add to the `wait` of the request, however busy others keep the queue.
_MAX_SETTLE = 1.0


@dataclass(slots=True, eq=False)
class Take:
    """At most `most` messages, each leased for `seconds`; `deadline` (loop time) bounds the wait for the first."""

    most: int
    seconds: float
    deadline: float
    leases: list[Lease] = field(default_factory=list)
    error: GatewayError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: When the first of its messages was given to it, and when the last of them had come.
    _first_at: float = 0.0
    _last_at: float = 0.0
    _size: int = 0

    @property
    def lacks(self) -> int:
        """Messages it would still take."""
        return 0 if self._size >= MAX_BYTES else self.most - len(self.leases)

    def add(self, lease: Lease, came_at: float, now: float) -> None:
        """A message, leased; it had come at `came_at`."""
        if not self.leases:
            self._first_at = now
        self.leases.append(lease)
        self._size += lease.size
        self._last_at = max(self._last_at, came_at)
        self.changed.set()

    def fail(self, error: GatewayError) -> None:
        """No message can come."""
        self.error = error
        self.changed.set()

    def drop_lost(self) -> None:
        """Leases that ended meanwhile are no part of the answer."""
        self.leases = [lease for lease in self.leases if not lease.over]
        self._size = sum(lease.size for lease in self.leases)

    def check(self) -> None:
        """Raises the error where nothing else is here."""
        if self.error is not None and not self.leases:
            raise self.error

    def until(self, asked_at: float, *, opening: bool) -> float:
        """How long to wait for more (loop time).

        `asked_at`: when a lane last began to wait for a message; `opening`: whether some are still being opened.
        """
        if self.leases:
            end = self._first_at + GATHER
            return end if opening else min(end, max(self._last_at, asked_at) + QUIET)
        if opening:
            return math.inf  # that ends by itself
        return max(self.deadline, min(asked_at + SETTLE, self.deadline + _MAX_SETTLE))
