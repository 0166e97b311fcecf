"""What goes on after its request was allowed, such as a stream: it ends when that would not be allowed any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.principal import Principal, Verb
from app.domain.uri import MqUri

logger = logging.getLogger("mq_gateway.auth")

#: Seconds of the longest timer: the clock may be set meanwhile.
LONGEST = 3600.0

Needs = Sequence[tuple[Verb, MqUri]]
#: Why somebody may not do this any more: `expired`, `revoked`, `forbidden`; None while all is well.
Objection = Callable[[Principal, Needs], str | None]
#: When its credential ends, as that is known now (Unix time in seconds); None where it does not end by itself.
Until = Callable[[Principal], float | None]


@dataclass(slots=True, eq=False)
class _Hold:
    principal: Principal
    needs: Needs
    end: Callable[[str], None]
    timer: asyncio.TimerHandle | None = None


class Lasting:
    """Knows all of it, looks again when asked to, and at each end of a credential by itself."""

    def __init__(self, objection: Objection, until: Until) -> None:
        self._objection = objection
        self._until = until
        self._holds: set[_Hold] = set()
        #: Another number after each change of what anybody may.
        self.changes = 0

    def begin(self, principal: Principal, needs: Needs, end: Callable[[str], None]) -> Callable[[], None]:
        """`end` is called, once, with the reason; what is returned forgets it.

        At once where it is not allowed by now: between the request and this a review may have been.
        """
        hold = _Hold(principal, needs, end)
        self._holds.add(hold)
        self._look(hold)

        def forget() -> None:
            self._holds.discard(hold)
            if hold.timer is not None:
                hold.timer.cancel()

        return forget

    def review(self, session: str | None = None) -> None:
        """Credentials or the policy have changed; or only this session has ended."""
        self.changes += 1
        for hold in list(self._holds):
            if session not in (None, hold.principal.session):
                continue
            try:
                self._look(hold)
            except Exception:
                logger.exception("something that may have to end goes on")  # and the others are looked at all the same

    def _watch(self, hold: _Hold) -> None:
        until = self._until(hold.principal)
        if until is not None:
            left = min(max(until - time.time(), 0.0), LONGEST)
            hold.timer = asyncio.get_running_loop().call_later(left, self._look, hold)

    def _look(self, hold: _Hold) -> None:
        """End it, or look again at the end of its credential, which may be another time than it was."""
        if hold.timer is not None:
            hold.timer.cancel()
            hold.timer = None
        if hold not in self._holds:
            return
        reason = self._objection(hold.principal, hold.needs)
        if reason is None:
            self._watch(hold)
        else:
            self._holds.discard(hold)
            hold.end(reason)
