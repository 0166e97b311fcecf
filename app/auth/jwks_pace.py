"""How often an issuer is asked for its keys, whatever tokens turn up."""

from __future__ import annotations

import random
from collections.abc import Callable

#: Seconds to rest after the first fetch that brought nothing, and at most.
FIRST_REST, LONGEST_REST = 1.0, 60.0


class FetchPace:
    """Two bounds: when the next fetch may be, and when it must be. Times are those of `clock`, in seconds."""

    def __init__(
        self,
        refresh: float,
        *,
        clock: Callable[[], float],
        first: float = FIRST_REST,
        longest: float = LONGEST_REST,
    ) -> None:
        self._refresh = refresh
        self._clock = clock
        self._first, self._longest = first, longest
        self._rest = first
        self._rests_until = self._due = clock()

    @property
    def may_fetch(self) -> bool:
        """Whether a token with an unknown key is worth a question now."""
        return self._clock() >= self._rests_until

    @property
    def until_due(self) -> float:
        """Seconds until there is to be a fetch that nobody asked for."""
        return max(0.0, self._due - self._clock())

    def brought_news(self) -> None:
        """A key came that was not there."""
        self._rest = self._first
        self._next(self._rest, self._refresh)

    def brought_none(self, *, asked: bool) -> None:
        """The same keys or fewer. Only what was asked in vain makes the next question wait longer."""
        self._next(self._rest if asked else self._first, self._refresh)
        if asked:
            self._lengthen()

    def failed(self) -> None:
        """No keys: the next attempt is not put off until the next refresh."""
        self._next(self._rest, min(self._rest, self._refresh))
        self._lengthen()

    def _lengthen(self) -> None:
        self._rest = min(self._longest, self._rest * 2)

    def _next(self, rest: float, due: float) -> None:
        now = self._clock()
        self._rests_until = max(self._rests_until, now + rest)
        # Sooner and never later: replicas that were started together do not ask together for long.
        self._due = now + due * random.uniform(0.9, 1.0)
