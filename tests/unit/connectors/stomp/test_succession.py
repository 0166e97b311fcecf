"""The heir of a connection until it is taken."""

from __future__ import annotations

import asyncio

from app.connectors.stomp.session import Session
from app.connectors.stomp.succession import Succession
from app.connectors.stomp.work import Work
from tests.unit.connectors.stomp.fake_session import FakeSession


async def test_an_heir_that_is_not_wanted_any_more_is_ended() -> None:
    made: list[FakeSession] = []

    async def make() -> Session:
        made.append(FakeSession(len(made) + 1))
        return made[-1]

    ready = asyncio.Event()
    succession = Succession(make, ready.set, Work("svc"))
    succession.begin()
    await ready.wait()
    ready.clear()
    succession.begin()  # another reload, before anybody took it
    assert len(made[0].aborted) == 1
    await ready.wait()
    assert succession.take() is made[1]
    succession.stop()
    assert (made[1].aborted, succession.take()) == ([], None)
