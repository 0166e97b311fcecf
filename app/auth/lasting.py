"""What goes on after its request was allowed, such as a stream: it ends when that would not be allowed any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.principal import Principal, Verb
from app.domain.uri import MqUri

#: Seconds of the longest timer: the clock may be set meanwhile.
LONGEST = 3600.0

Needs = Sequence[tuple[Verb, MqUri]]
#: Why somebody may not do this any more: `expired`, `revoked`, `forbidden`; None while all is well.
Objection = Callable[[Principal, Needs], str | None]


@dataclass(slots=True, eq=False)
class _Hold:
    principal: Principal
    needs: Needs
    end: Callable[[str], None]
    timer: asyncio.TimerHandle | None = None


class Lasting:
    """Knows all of it, looks again when asked to, and at each end of a credential by itself."""

    def __init__(self, objection: Objection) -> None:
        self._objection = objection
        self._holds: set[_Hold] = set()

    def begin(self, principal: Principal, needs: Needs, end: Callable[[str], None]) -> Callable[[], None]:
        """`end` is called, once, with the reason; what is returned forgets it."""
        hold = _Hold(principal, needs, end)
        self._holds.add(hold)
        self._watch(hold)

        def forget() -> None:
            self._holds.discard(hold)
            if hold.timer is not None:
                hold.timer.cancel()

        return forget

    def review(self) -> None:
        """Credentials or the policy have changed."""
        for hold in list(self._holds):
            self._look(hold)

    def _watch(self, hold: _Hold) -> None:
        until = hold.principal.until
        if until is not None:
            left = min(max(until - time.time(), 0.0), LONGEST)
            hold.timer = asyncio.get_running_loop().call_later(left, self._at_end, hold)

    def _at_end(self, hold: _Hold) -> None:
        if self._look(hold):
            self._watch(hold)

    def _look(self, hold: _Hold) -> bool:
        """Whether it may go on."""
        if hold not in self._holds:
            return False
        reason = self._objection(hold.principal, hold.needs)
        if reason is None:
            return True
        self._holds.discard(hold)
        if hold.timer is not None:
            hold.timer.cancel()
        hold.end(reason)
        return False
