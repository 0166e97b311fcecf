"""How long to wait before the next attempt: DIRAC's formula, `min(max, initial * (1 + increase)^n) * (1 + jitter)`."""

from __future__ import annotations

import random

from app.config.settings import ReconnectSettings

#: A connection that ends sooner than this after it came up counts as a failed attempt: no tight loop on a
#: broker that accepts and closes. The first such waits are short, so that one bad frame costs under a second.
SHORT_LIFE = 1.0
_SHORT_LIFE_WAIT = 0.05
_SHORT_LIFE_MAX = 1.0
#: Refused logins (count) in a row that are taken for a broker still starting. From the next on it is a wrong
#: password, and each try may lock an account: seconds between tries, doubled each time up to the longest.
REFUSALS = 3
REFUSED_WAIT = 30.0
REFUSED_MAX = 300.0


class Backoff:
    """Knows the failed attempts in a row. Seconds."""

    def __init__(self, settings: ReconnectSettings) -> None:
        self._settings = settings
        self._next = settings.initial
        self._short_lives = 0
        self._refusals = 0

    def after_refusal(self) -> float:
        """The wait after a login that the broker refused."""
        wait = self.after_failure()
        self._refusals += 1
        beyond = self._refusals - REFUSALS
        if beyond <= 0:
            return wait
        return max(wait, self._jittered(min(REFUSED_MAX, REFUSED_WAIT * 2 ** min(beyond - 1, 30))))

    def after_failure(self) -> float:
        """The wait after an attempt that did not come up."""
        wait = min(self._settings.max, self._next)
        # From one to the next and never beyond the longest: a power would overflow after hours of failing.
        self._next = wait * (1 + self._settings.increase)
        return self._jittered(wait)

    def after_life(self, seconds: float) -> float:
        """The wait after a connection that had been up for this long: none, unless it was very short."""
        self._next = self._settings.initial
        self._refusals = 0
        self._short_lives = self._short_lives + 1 if seconds < SHORT_LIFE else 0
        if self._short_lives <= 1:
            return 0.0
        wait = _SHORT_LIFE_WAIT * 2 ** min(self._short_lives, 30)
        return self._jittered(min(self._settings.max, _SHORT_LIFE_MAX, wait))

    def _jittered(self, wait: float) -> float:
        return wait * (1 + random.random() * self._settings.jitter)
