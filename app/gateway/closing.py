"""The end of many things at once, by one deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable

logger = logging.getLogger("mq_gateway.closing")

#: Seconds for what is cut off to notice that.
CUT_OFF_SECONDS = 0.25


async def close_together(what: str, work: Iterable[Awaitable[object]], seconds: float) -> None:
    """Close all at once, within `seconds` and CUT_OFF_SECONDS; `what` names them in the log.

    What fails is logged. What is not done by then is cancelled, and left to itself where that does not help.
    """
    tasks = {asyncio.ensure_future(each) for each in work}
    if not tasks:
        return
    late = tasks
    try:
        _, late = await asyncio.wait(tasks, timeout=seconds)
    finally:  # also where we are cancelled
        for task in late:
            task.cancel()
    if late:
        logger.warning("%d of %d %s were not closed in time", len(late), len(tasks), what)
        await asyncio.wait(late, timeout=CUT_OFF_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            logger.error("closing %s failed: %s", what, task.exception())
