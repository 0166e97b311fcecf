"""Pauses between attempts: ever longer, spread so that those who lost the same gateway do not all come at once."""

from __future__ import annotations

import random

#: Seconds of the first pause and of the longest; the most that a gateway can ask for.
FIRST_PAUSE, LONGEST_PAUSE, MOST_ASKED = 0.5, 30.0, 60.0


class Pauses:
    """`next()` after each failure."""

    def __init__(self) -> None:
        self._longest = FIRST_PAUSE

    def next(self, at_least: float | None = None) -> float:
        """Seconds: half to all of what doubles each time, and no less than the gateway asked for."""
        pause = random.uniform(self._longest / 2, self._longest)
        self._longest = min(self._longest * 2, LONGEST_PAUSE)
        return max(pause, min(at_least or 0.0, MOST_ASKED))
