"""Destinations that were in flight whenever the connection ended: who keeps killing it rests for a while.

A broker may close the shared connection for one frame without saying which (see the invariants in DESIGN: one client
cannot hurt another). Nobody is accused for a single end; three of one link within a minute are no accident. Those of
different links are: what ends the connections to several brokers together is the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

#: So many ends within so many seconds, and the destination rests for so many seconds.
ENDS = 3
WINDOW = 60.0
REST = 60.0
#: Destinations remembered; the oldest are forgotten first.
MAX_SUSPECTS = 10_000


class Suspects:
    """By link and STOMP destination; who rests does so on all links. Times are those of the event loop, in seconds."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], deque[float]] = {}
        self._resting: dict[str, float] = {}

    def ended(self, link: str, paths: Iterable[str], now: float) -> list[str]:
        """The connection of this link ended with these in flight; the ones that rest from now on."""
        caught = []
        self._resting = {path: until for path, until in self._resting.items() if until > now}
        for path in paths:
            ends = self._ends.pop((link, path), None) or deque(maxlen=ENDS)
            ends.append(now)
            if len(ends) == ENDS and now - ends[0] <= WINDOW:
                self._resting[path] = now + REST
                caught.append(path)
            else:
                self._ends[link, path] = ends
        while len(self._ends) > MAX_SUSPECTS:
            del self._ends[next(iter(self._ends))]
        return caught

    def rest(self, path: str, now: float) -> float:
        """Seconds for which a destination still rests, 0 where it does not."""
        until = self._resting.get(path)
        if until is None:
            return 0.0
        if until <= now:
            del self._resting[path]
            return 0.0
        return until - now
