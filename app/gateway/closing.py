"""The end of many things at once, by one deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator

logger = logging.getLogger("mq_gateway.closing")

#: Seconds for what is cut off to notice that.
CUT_OFF_SECONDS = 0.25
#: Seconds between the end of the streams of a service that is gone and the end of its link.
FAREWELL_SECONDS = 1.0


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


class Farewells:
    """The ends of links nobody is to use any more, each after a moment in which streams end and acks are sent."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[asyncio.Task[None]]:
        return iter(tuple(self._tasks))

    def add(self, close: Callable[[], Awaitable[None]], seconds: float, *, now: bool) -> None:
        """Close within `seconds`, after the moment or `now`."""

        async def farewell() -> None:
            await asyncio.sleep(0 if now else FAREWELL_SECONDS)
            await close_together("links", [close()], seconds + CUT_OFF_SECONDS)

        task = asyncio.get_running_loop().create_task(farewell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
