"""Many ends by one deadline."""

from __future__ import annotations

import asyncio

import pytest

from app.gateway import closing
from app.gateway.closing import close_together
from tests.unit.gateway.fakes import turns


async def _fails() -> None:
    raise OSError("no route")


async def test_nothing_to_close_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    await close_together("links", [], 0)
    assert caplog.messages == []


async def test_all_are_closed_at_once_and_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    met = asyncio.Barrier(2)

    async def meets() -> None:
        await met.wait()

    async with asyncio.timeout(5):
        await close_together("links", [meets(), _fails(), meets()], 5)
    assert caplog.messages == ["closing links failed: no route"]


async def test_what_was_cancelled_before_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await close_together("streams", [task], 5)
    assert caplog.messages == []


async def test_what_is_late_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    cut: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.append("off")

    await close_together("links", [hangs(), turns(1)], 0.01)
    assert cut == ["off"]
    assert caplog.messages == ["1 of 2 links were not closed in time"]


async def test_what_does_not_notice_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "CUT_OFF_SECONDS", 0.01)
    go_on = asyncio.Event()

    async def deaf() -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(deaf())
    async with asyncio.timeout(5):
        await close_together("links", [task], 0.01)
    assert not task.done()
    go_on.set()
    await task


async def test_who_is_cancelled_cuts_off_all() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(close_together("links", [task], 60))
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting, task])
    assert waiting.cancelled()
    assert task.cancelled()
