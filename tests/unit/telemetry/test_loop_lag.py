"""How late the loop is."""

from __future__ import annotations

import asyncio
import time

from app.telemetry.loop_lag import WINDOW, LoopLag
from app.telemetry.metrics import Metrics


def _value(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("mq_gateway_loop_lag_seconds")
    assert value is not None
    return value


def test_the_worst_of_the_window_is_shown_and_then_forgotten() -> None:
    metrics = Metrics()
    lag = LoopLag(metrics.loop_lag_seconds)
    lag.observe(2.0)
    lag.observe(-0.001)
    assert _value(metrics) == 2.0
    for _ in range(WINDOW - 2):
        lag.observe(0.1)
    assert _value(metrics) == 2.0
    lag.observe(0.1)
    assert _value(metrics) == 0.1


async def test_a_blocked_loop_is_seen() -> None:
    metrics = Metrics()
    seen = asyncio.Event()

    class Seen(LoopLag):
        def observe(self, lag: float) -> None:
            super().observe(lag)
            if lag > 0.01:
                seen.set()

    task = asyncio.create_task(Seen(metrics.loop_lag_seconds, interval=0.001).run())
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - the very thing that is to be noticed
    async with asyncio.timeout(5):
        await seen.wait()
    task.cancel()
    assert _value(metrics) > 0.01
