"""Sessions of browsers: a cookie that says whose it is, sealed, so that every replica takes it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from app.auth.sealed import Seal
from app.domain.principal import Principal

#: `__Host-` (RFC 6265bis section 4.1.3.2): from this very host, over TLS, for all paths; no subdomain can set it.
COOKIE = "__Host-mq-gateway"
#: Sessions (count) that were ended before their time, and are remembered: of all, and of one principal.
MAX_ENDED = 100_000
MAX_OF_ONE = 1_000
#: Cookies (count) whose content is remembered.
OPENED = 4096


class Sessions:
    """Opens cookies; remembers which sessions were ended here. Another replica learns nothing of that."""

    def __init__(self, seal: Seal, clock: Callable[[], float] = time.time) -> None:
        self._seal = seal
        self._clock = clock
        #: By whose they were, the oldest first; with the time until which each would have lasted.
        self._ended: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._count = 0
        # A page sends its cookie with every request; what was decided about its principal is remembered with that.
        self.open = lru_cache(OPENED)(self._open)

    def _open(self, text: str) -> Principal:
        """Whose session it is, be it over by now; raises SealError."""
        session = self._seal.open(text, at=0.0)
        until = session.principal.until
        end = session.until if until is None else min(session.until, until)
        return replace(session.principal, until=end, session=session.id)

    def end(self, principal: Principal) -> bool:
        """The session this principal was recognised by is over; whether it was one that was not."""
        if not principal.session or self.has_ended(principal):
            return False
        of_one = self._ended.setdefault(principal.label, OrderedDict())
        of_one[principal.session] = principal.until or self._clock()
        self._count += 1
        self._forget(of_one, MAX_OF_ONE)
        if self._count > MAX_ENDED:
            self._forget_oldest()
        return True

    def has_ended(self, principal: Principal) -> bool:
        """Whether this session was ended before its time."""
        return principal.session in self._ended.get(principal.label, ())

    def _forget(self, of_one: OrderedDict[str, float], most: int) -> None:
        """Those that are over anyhow, and the oldest beyond `most`: nobody makes another's be forgotten."""
        while of_one and (len(of_one) > most or next(iter(of_one.values())) <= self._clock()):
            of_one.popitem(last=False)
            self._count -= 1

    def _forget_oldest(self) -> None:
        """Of the one who first ended a session: all, for it was longest ago."""
        _, of_one = self._ended.popitem(last=False)
        self._count -= len(of_one)
