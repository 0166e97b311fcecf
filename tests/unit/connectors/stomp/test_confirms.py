"""Pending receipts: every one ends, and exactly once."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.confirms import Confirms
from app.domain.errors import BrokerRejected, ConnectionLost


async def test_a_receipt_ends_exactly_its_own_request() -> None:
    confirms = Confirms()
    one, two = confirms.expect("/queue/a"), confirms.expect("/queue/b")
    assert one.receipt != two.receipt
    assert confirms.resolve(two.receipt)
    assert two.future.done()
    assert not one.future.done()
    assert list(confirms) == [one]
    assert confirms.with_id(one.receipt) is one
    assert confirms.with_id(two.receipt) is None


async def test_a_receipt_twice_or_of_nobody_is_told_apart() -> None:
    confirms = Confirms()
    pending = confirms.expect()
    assert confirms.resolve(pending.receipt)
    assert not confirms.resolve(pending.receipt)
    assert not confirms.resolve("r99")
    assert not confirms.resolve("")


async def test_a_late_receipt_of_a_forgotten_request_does_nothing() -> None:
    confirms = Confirms()
    pending = confirms.expect()
    confirms.forget(pending)
    confirms.forget(pending)
    assert len(confirms) == 0
    assert not confirms.resolve(pending.receipt)
    assert not pending.future.done()


async def test_a_receipt_for_somebody_who_was_cancelled_is_late() -> None:
    confirms = Confirms()
    pending = confirms.expect()
    pending.future.cancel()
    assert not confirms.resolve(pending.receipt)
    assert len(confirms) == 0


async def test_ids_are_never_used_again() -> None:
    confirms = Confirms()
    seen = set()
    for _ in range(100):
        pending = confirms.expect()
        seen.add(pending.receipt)
        confirms.forget(pending)
    assert len(seen) == 100


async def test_a_refusal_ends_one_with_its_reason() -> None:
    confirms = Confirms()
    pending, other = confirms.expect("/queue/a"), confirms.expect("/queue/a")
    confirms.refuse(pending, BrokerRejected("no"))
    with pytest.raises(BrokerRejected, match="no"):
        await pending.future
    assert list(confirms) == [other]


async def test_a_lost_connection_ends_all_and_passes_over_who_is_gone() -> None:
    confirms = Confirms()
    waiting, gone = confirms.expect("/queue/a"), confirms.expect()
    gone.future.cancel()
    confirms.fail_all(ConnectionLost, "lost")
    assert len(confirms) == 0
    with pytest.raises(ConnectionLost, match="lost"):
        await waiting.future
    assert gone.future.cancelled()


async def test_settled_when_nobody_waits_any_more_however_that_came() -> None:
    confirms = Confirms()
    await confirms.settled()
    one, two, three = (confirms.expect() for _ in range(3))
    settled = asyncio.ensure_future(confirms.settled())
    confirms.resolve(one.receipt)
    confirms.refuse(two, BrokerRejected("no"))
    await asyncio.sleep(0)
    assert not settled.done()
    confirms.forget(three)
    four = confirms.expect()  # somebody came in between
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not settled.done()
    confirms.fail_all(ConnectionLost, "gone")
    await settled
    assert four.future.done()
    for each in (two, four):
        each.future.exception()
