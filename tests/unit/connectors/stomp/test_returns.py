"""Giving messages back to RabbitMQ after their subscription ended."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.returns import Returns
from tests.unit.connectors.stomp.fake_session import FakeSession

TAG = "T_1-7@@session-abc@@"


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def _nacked(session: FakeSession) -> list[str]:
    return [frame.headers["id"] for frame in session.sent if frame.cmd == "NACK"]


async def _give_back(session: FakeSession, returns: Returns, *tokens: str) -> None:
    before = len(_nacked(session))
    task = asyncio.ensure_future(returns.give_back(tokens))
    await _turn()
    if len(_nacked(session)) == before:
        session.confirm("SUBSCRIBE")
        await _turn()
    session.confirm("NACK")
    await task


def _see(session: FakeSession, number: str) -> None:
    session.receive("MESSAGE", {"message-id": TAG + number, "subscription": "none"})


async def test_messages_go_back_under_the_id_of_a_subscription_that_lives() -> None:
    session = FakeSession()
    await _give_back(session, Returns(session), TAG + "3", TAG + "5")
    janitor = session.last("SUBSCRIBE")
    assert janitor["destination"].startswith("/topic/mq-gateway.returns.")
    assert janitor["ack"] == "auto"
    assert _nacked(session) == [f"T_{janitor['id']}@@session-abc@@{number}" for number in (3, 5)]


async def test_one_subscription_is_enough_for_a_connection() -> None:
    session = FakeSession()
    returns = Returns(session)
    await _give_back(session, returns, TAG + "1")
    await _give_back(session, returns, TAG + "2")
    assert session.commands().count("SUBSCRIBE") == 1
    assert len(_nacked(session)) == 2


async def test_where_the_broker_refuses_it_only_the_end_of_the_connection_frees_them() -> None:
    session = FakeSession()
    task = asyncio.ensure_future(Returns(session).give_back([TAG + "1"]))
    await _turn()
    session.receive("ERROR", {"receipt-id": session.last("SUBSCRIBE")["receipt"], "message": "denied"})
    await task
    assert _nacked(session) == []
    assert len(session.aborted) == 1


async def test_a_broker_that_does_not_answer_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    asked: list[float] = []
    real = asyncio.timeout

    def at_once(seconds: float) -> asyncio.Timeout:
        asked.append(seconds)
        return real(0)

    monkeypatch.setattr(asyncio, "timeout", at_once)
    await Returns(session).give_back([TAG + "1"])
    assert asked == [10]
    assert len(session.aborted) == 1


async def test_whoever_waits_may_be_cancelled_and_the_next_one_still_gets_it() -> None:
    session = FakeSession()
    returns = Returns(session)
    first = asyncio.ensure_future(returns.give_back([TAG + "1"]))
    await _turn()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await _give_back(session, returns, TAG + "2")
    assert len(_nacked(session)) == 1
    assert session.aborted == []


async def test_a_subscription_the_broker_ended_is_not_borrowed_from_again() -> None:
    session = FakeSession()
    returns = Returns(session)
    await _give_back(session, returns, TAG + "1")
    first = session.last("SUBSCRIBE")["id"]
    session.receive("ERROR", {"subscription": first, "message": "server cancelled"})
    task = asyncio.ensure_future(returns.give_back([TAG + "2"]))
    await _turn()
    session.confirm("SUBSCRIBE")
    await _turn()
    session.confirm("NACK")
    await task
    assert session.last("SUBSCRIBE")["id"] != first
    assert _nacked(session)[-1] == f"T_{session.last('SUBSCRIBE')['id']}@@session-abc@@2"


async def test_a_nack_that_is_not_confirmed_ends_the_connection() -> None:
    session = FakeSession()
    task = asyncio.ensure_future(Returns(session).give_back([TAG + "1"]))
    await _turn()
    session.confirm("SUBSCRIBE")
    await _turn()
    session.receive("ERROR", {"receipt-id": session.last("NACK")["receipt"], "message": "Subscription not found"})
    await task
    assert len(session.aborted) == 1


async def test_a_message_that_came_after_the_end_is_the_one_after_the_last_seen() -> None:
    session = FakeSession()
    returns = Returns(session)
    _see(session, "41")
    returns.ended("1-7")
    for _ in range(2):
        session.receive("ERROR", {"message": "x"}, b"no current subscription with tag 'T_1-7'")
    await _turn()
    session.confirm("SUBSCRIBE")
    await _turn()
    assert [token.partition("@@")[2] for token in _nacked(session)] == ["session-abc@@42", "session-abc@@43"]
    assert "error_unattributed" not in session.told


async def test_a_message_of_somebody_who_does_not_acknowledge_only_counts() -> None:
    session = FakeSession()
    returns = Returns(session)
    _see(session, "1")
    returns.ended("1-7")
    session.receive("ERROR", {}, b"no current subscription with tag 'T_1-9'")
    session.receive("ERROR", {}, b"no current subscription with tag 'T_1-7'")
    await _turn()
    session.confirm("SUBSCRIBE")
    await _turn()
    assert [token.rpartition("@@")[2] for token in _nacked(session)] == ["3"]


@pytest.mark.parametrize("odd", ["", "ID:host-1:1", "T_1@@s@@x", "T_1@@s@@\u00b2", "T_1@@s@@\u0661"])
async def test_an_odd_message_id_moves_no_number_and_breaks_nothing(odd: str) -> None:
    session = FakeSession()
    returns = Returns(session)
    _see(session, "5")
    session.receive("MESSAGE", {"message-id": odd, "subscription": "none"})
    returns.ended("1-7")
    session.receive("ERROR", {}, b"no current subscription with tag 'T_1-7'")
    await _turn()
    session.confirm("SUBSCRIBE")
    await _turn()
    assert [token.rpartition("@@")[2] for token in _nacked(session)] == ["6"]


async def test_what_arrives_at_the_subscription_that_waits_for_nothing_is_nothing() -> None:
    session = FakeSession()
    await _give_back(session, Returns(session), TAG + "1")
    name = session.last("SUBSCRIBE")["id"]
    session.receive("MESSAGE", {"subscription": name, "message-id": "x"})
    session.receive("ERROR", {"subscription": name})
    assert session.told == []


async def test_only_the_latest_ends_are_remembered() -> None:
    session = FakeSession()
    returns = Returns(session)
    for number in range(2000):
        returns.ended(f"1-{number}")
    session.receive("ERROR", {}, b"no current subscription with tag 'T_1-3'")
    await _turn()
    assert session.sent == []
