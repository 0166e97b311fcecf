"""What is done in the background."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.work import Work


async def test_what_fails_is_logged_and_the_rest_ends_with_the_owner(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a defect")

    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    work = Work("svc")
    failing, going_on = work.begin(fail()), work.begin(for_ever())
    await asyncio.wait([failing])
    await work.end()
    assert going_on.cancelled()
    assert "svc: what was to be done for a connection failed" in caplog.text
    await work.end()
