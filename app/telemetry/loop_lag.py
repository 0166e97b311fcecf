"""How late the event loop is: the first number to look at when everything is slow."""

from __future__ import annotations

import asyncio

from prometheus_client import Gauge

#: Seconds between two looks, and looks per published value: a stall shows for five seconds.
INTERVAL = 0.25
WINDOW = 20


class LoopLag:
    """Sleeps, looks how late it woke, and keeps the worst of the last WINDOW looks in the gauge."""

    def __init__(self, gauge: Gauge, *, interval: float = INTERVAL) -> None:
        self._gauge = gauge
        self._interval = interval
        self._recent: list[float] = []

    def observe(self, lag: float) -> None:
        """Take one look's result in seconds."""
        self._recent = [*self._recent[-(WINDOW - 1) :], max(0.0, lag)]
        self._gauge.set(max(self._recent))

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(self._interval)
            self.observe(loop.time() - before - self._interval)
