"""How slowly a body may come: the same rule wherever one is waited for."""

from __future__ import annotations

#: Bytes a second. A body that comes as fast in the long run is never given up (a GSM modem brings 1 200), one
#: that comes slower is, however often a byte of it comes. It bounds how long a body under a cap can take at
#: all: about 68 minutes for 4 MiB.
BODY_RATE = 1024


def time_left(left: float, size: float, patience: float) -> float:
    """Seconds a body has from now on, after `size` more bytes of it came when it had `left` seconds.

    A body begins with `patience` seconds and earns one for every BODY_RATE bytes, but never has more than
    `patience`: that is also the longest silence after any piece of it. A burst at its beginning pays for no
    drip later on. `size` is infinite where the waiting begins anew.
    """
    return min(left + size / BODY_RATE, patience)
