"""One deadline that moves with almost every request, at the price of one timer now and then."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `expired` once, on the loop, when the time set last has passed.

    Moving the deadline further away or lifting it leaves the timer of the loop alone: when that fires too
    early it is set again for the rest.
    """

    __slots__ = ("_due", "_expired", "_fires", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._due = math.inf
        self._fires = math.inf  # when the timer does, whether or not that is still wanted
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """The deadline is `seconds` from now, whatever it was before."""
        self._due = due = self._loop.time() + seconds
        if due < self._fires:
            self.release()
            self._set(due)

    def left(self) -> float:
        """Seconds to the deadline, negative when it has passed; infinite when there is none."""
        return self._due - self._loop.time()

    def lift(self) -> None:
        """There is no deadline until the next start."""
        self._due = math.inf

    def release(self) -> None:
        """Gives the timer back to the loop; for the end of a connection. A later start takes a new one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._fires = math.inf

    def _set(self, when: float) -> None:
        self._fires = when
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._fires = math.inf
        if self._due == math.inf:
            return
        # The clock of a loop has milliseconds: what is left below one is over.
        if self._due - self._loop.time() > 0.001:
            self._set(self._due)
            return
        self.lift()
        self._expired()
