"""How many tasks there are."""

from __future__ import annotations

import asyncio

from app.telemetry.metrics import Metrics


def _tasks(metrics: Metrics) -> float:
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith("mq_gateway_tasks ")]
    return float(line.split()[1])


async def test_a_task_counts_until_it_is_done() -> None:
    metrics = Metrics()
    before = _tasks(metrics)
    assert before >= 1
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(3)]
    assert _tasks(metrics) == before + 3
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert _tasks(metrics) == before


def test_without_a_loop_there_is_none() -> None:
    assert _tasks(Metrics()) == 0
