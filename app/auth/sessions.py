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
        self._ended: OrderedDict[str, float] = OrderedDict()
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
        if principal.session:
            self._ended[principal.session] = principal.until or self._clock()
            while len(self._ended) > MAX_ENDED or next(iter(self._ended.values())) <= self._clock():
                self._ended.popitem(last=False)
                if not self._ended:
                    break

    def has_ended(self, principal: Principal) -> bool:
        return principal.session in self._ended
