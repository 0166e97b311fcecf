"""How many asyncio tasks there are: what starts one and forgets it shows here first."""

from __future__ import annotations

import asyncio


def count_tasks() -> float:
    """Tasks (count) of the running loop that are not done; 0 outside a loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0
