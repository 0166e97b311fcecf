"""How long one take waits, and what is its answer."""

from __future__ import annotations

import math

import pytest

from app.connectors.base import Delivery
from app.domain.errors import BrokerUnavailable
from app.gateway import take as module
from app.gateway.leases import Lease
from app.gateway.take import Take
from tests.unit.gateway.fakes import message, queue
from tests.unit.gateway.test_leases import Holder


async def _lease(body: bytes = b"x") -> Lease:
    return Lease(1, queue().uri, Holder(), Delivery(message(body), "t", 1), 60, 0, 0)


async def test_without_a_message_it_waits_until_the_queue_is_known_to_be_empty() -> None:
    take = Take(1, 60, deadline=100)
    assert take.until(0, opening=True) == math.inf
    assert take.until(50, opening=False) == 100
    assert take.until(99.9, opening=False) == pytest.approx(99.9 + module.SETTLE)
    assert take.until(1000, opening=False) == 101


async def test_with_a_message_it_waits_a_moment_for_more() -> None:
    take = Take(3, 60, deadline=100)
    take.add(await _lease(), came_at=5, now=10)
    assert take.until(0, opening=False) == pytest.approx(5 + module.QUIET)
    assert take.until(9.99, opening=False) == pytest.approx(9.99 + module.QUIET)
    assert take.until(10, opening=True) == 10 + module.GATHER
    take.add(await _lease(), came_at=10.4, now=10.4)
    assert take.until(0, opening=False) == pytest.approx(10.4 + module.QUIET)
    take.add(await _lease(), came_at=10.49, now=10.49)
    assert take.until(0, opening=False) == 10 + module.GATHER
    assert take.lacks == 0


async def test_a_lost_lease_is_no_part_of_it_and_an_error_only_where_nothing_else_is() -> None:
    take = Take(2, 60, deadline=100)
    lease = await _lease(bytes(module.MAX_BYTES))
    take.add(lease, 0, 0)
    assert take.lacks == 0
    take.fail(BrokerUnavailable("down"))
    take.check()
    lease.over = True
    take.drop_lost()
    assert take.lacks == 2
    with pytest.raises(BrokerUnavailable):
        take.check()
