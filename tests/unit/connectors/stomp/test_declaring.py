"""What a declaration leaves on its connection."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.declaring import declare
from tests.unit.connectors.stomp.fake_session import FakeSession


async def test_one_that_is_given_up_ends_what_it_asked_for_and_leaves_nothing() -> None:
    session = FakeSession()
    declaring = asyncio.ensure_future(declare(session, "/topic/alerts", {}, acks=True))
    await asyncio.sleep(0)
    declaring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await declaring
    assert session.commands() == ["SUBSCRIBE", "UNSUBSCRIBE"]
    lane = session.last("SUBSCRIBE")["id"]
    session.receive("MESSAGE", {"subscription": lane, "message-id": "1", "ack": "a1"})
    assert session.last("ACK")["id"] == "a1", "it holds no credit until it has ended"
    session.confirm("UNSUBSCRIBE")
    await asyncio.sleep(0)
    assert (session._routes, len(session.confirms)) == ({}, 0)


async def test_one_that_is_given_up_with_its_connection_asks_for_nothing() -> None:
    session = FakeSession()
    declaring = asyncio.ensure_future(declare(session, "/topic/alerts", {}))
    await asyncio.sleep(0)
    declaring.cancel()
    session.lose()
    with pytest.raises(asyncio.CancelledError):
        await declaring
    assert session.commands() == ["SUBSCRIBE"]
    assert session._routes == {}
