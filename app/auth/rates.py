"""How much a second: a bucket of tokens for each principal, which may be overdrawn by one request.

Whoever has one left, a message or a byte, may send a message of any size, and then waits until what it took too much
has come back: no size is impossible, and over time nobody has more than the rate.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.domain.errors import RateLimited

#: Principals (count) that are remembered; of one that has been forgotten the bucket is full again.
MAX_BUCKETS = 10_000
#: Seconds of the rate that may come at once.
BURST_SECONDS = 1.0
#: What has to be left: one. Less by no more than what a clock and floating point lose, for who waited as he was told.
_ONE = 1.0 - 1e-6


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rate:
    """One rate: `per_second` of `what`, None for as many as come."""

    def __init__(self, per_second: float | None, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._what = what
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @property
    def is_limited(self) -> bool:
        return self._per_second is not None

    @property
    def _burst(self) -> float:
        return max(1.0, (self._per_second or 0.0) * BURST_SECONDS)

    def wait(self, key: str) -> float:
        """Seconds until something may be taken; 0 where it may be now."""
        if self._per_second is None:
            return 0.0
        bucket = self._bucket(key)
        return 0.0 if bucket.left >= _ONE else (1.0 - bucket.left) / self._per_second

    def take(self, key: str, amount: float) -> None:
        """Count what was sent."""
        if self._per_second is not None:
            self._bucket(key).left -= amount

    def check(self, key: str) -> None:
        """Raises RateLimited, which says when it may be tried again."""
        wait = self.wait(key)
        if wait > 0:
            raise RateLimited(f"more than {self._per_second:g} {self._what} a second", retry_after=wait)

    def _bucket(self, key: str) -> _Bucket:
        now, rate = self._clock(), self._per_second or 0.0
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            bucket.left = min(self._burst, bucket.left + (now - bucket.at) * rate)
            bucket.at = now
            self._buckets.move_to_end(key)
        return bucket


class Rates:
    """Messages and bytes a second of one principal."""

    def __init__(self, messages: float | None, size: float | None) -> None:
        self._both = [Rate(messages, "messages"), Rate(size, "bytes")]
        self.are_limited = any(rate.is_limited for rate in self._both)

    def check(self, key: str) -> None:
        """Before anything of a message is read; raises RateLimited."""
        for rate in self._both:
            rate.check(key)

    def take(self, key: str, messages: int, size: int) -> None:
        """What is about to be sent, bytes of bodies; whoever has one left may overdraw. Raises RateLimited.

        Checked here too: many requests whose bodies were yet to come may have been let pass while there was something.
        """
        self.check(key)
        for rate, amount in zip(self._both, (messages, size), strict=True):
            rate.take(key, amount)

    async def pace(self, key: str) -> None:
        """Wait until something may be sent: what comes as one long request is slowed, not refused."""
        while True:
            wait = max(rate.wait(key) for rate in self._both)
            if wait <= 0:
                return
            await asyncio.sleep(wait)
