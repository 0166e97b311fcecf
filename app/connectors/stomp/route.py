"""Where a connection hands on what comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stomp.utils import Frame


@dataclass(frozen=True, slots=True)
class Route:
    """Where the MESSAGEs of one subscription go; `path` is its STOMP destination, `queue` the queue it names."""

    path: str
    acknowledge: bool
    on_message: Callable[[Frame], None]
    on_cancelled: Callable[[str], None]
    queue: str = ""
