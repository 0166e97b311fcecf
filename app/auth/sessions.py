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
#: Sessions (count) that were ended before their time, and are remembered.
MAX_ENDED = 100_000
#: Cookies (count) whose content is remembered.
OPENED = 4096


class Sessions:
    """Opens cookies; remembers which sessions were ended here. Another replica learns nothing of that."""

    def __init__(self, seal: Seal, clock: Callable[[], float] = time.time) -> None:
        self._seal = seal
        self._clock = clock
        #: By whose they were, the oldest first; with the time until which each would have lasted.
        self._ended: dict[str, OrderedDict[str, float]] = {}
        # A page sends its cookie with every request; what was decided about its principal is remembered with that.
        self.open = lru_cache(OPENED)(self._open)

    def _open(self, text: str) -> Principal:
        """Whose session it is, be it over by now; raises SealError."""
        session = self._seal.open(text, at=0.0)
        until = session.principal.until
        end = session.until if until is None else min(session.until, until)
        return replace(session.principal, until=end, session=session.id)

    def end(self, principal: Principal) -> None:
        """The session this principal was recognised by is over."""
        if principal.session and not self.has_ended(principal):
            if sum(map(len, self._ended.values())) >= MAX_ENDED:
                self._forget()
            of_one = self._ended.setdefault(principal.label, OrderedDict())
            of_one[principal.session] = principal.until or self._clock()

    def has_ended(self, principal: Principal) -> bool:
        """Whether this session was ended before its time."""
        return principal.session in self._ended.get(principal.label, ())

    def _forget(self) -> None:
        """Those that are over anyhow, or else the oldest of whoever has most: nobody makes another's be forgotten."""
        now = self._clock()
        left = {
            label: OrderedDict((key, until) for key, until in ended.items() if until > now)
            for label, ended in self._ended.items()
        }
        self._ended = {label: ended for label, ended in left.items() if ended}
        if sum(map(len, self._ended.values())) >= MAX_ENDED:
            max(self._ended.values(), key=len).popitem(last=False)
