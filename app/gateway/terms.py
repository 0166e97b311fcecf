"""What all takers of a process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.gateway.leases import Leases


@dataclass(frozen=True, slots=True)
class Terms:
    """`linger` in seconds, `grew` told of bytes held, `room` for how many more lanes."""

    leases: Leases
    linger: float
    grew: Callable[[str, int], None]
    room: Callable[[], int]
