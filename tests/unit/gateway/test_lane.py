"""One subscription with one message at a time."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.base import Delivery
from app.gateway.lane import Lane
from app.gateway.leases import Lease
from tests.unit.gateway.fakes import FakeConnector, message, queue, turns


class Owner:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def arrived(self, lane: Lane, delivery: Delivery) -> None:
        self.told.append(f"arrived {delivery.token}")

    def settled(self, lane: Lane) -> None:
        self.told.append("settled")

    def withdrawn(self, lane: Lane, token: str) -> None:
        self.told.append(f"withdrawn {token}")

    def ended(self, lane: Lane, detail: str | None) -> None:
        self.told.append(f"ended {detail}")


class Bench:
    def __init__(self, *, stays: bool = False) -> None:
        self.owner = Owner()
        self.lane = Lane(self.owner, stays=stays)
        self.connector = FakeConnector()

    async def open(self) -> None:
        await self.lane.open(queue(), self.connector, 5)

    def lease(self, token: str = "1") -> Delivery:
        delivery = Delivery(message(), token, 1)
        self.lane.leased[token] = Lease(1, queue().uri, self.lane, delivery, 60, 0, 0)
        return delivery


async def test_it_says_what_it_is_told() -> None:
    bench = Bench()
    await bench.open()
    assert bench.lane.is_free
    bench.connector.latest.deliver(b"a")
    bench.lane.on_withdrawn("1")
    bench.lane.on_lost()
    bench.lane.on_restored()
    bench.lane.on_cancelled("why")
    assert bench.owner.told == ["arrived 1", "withdrawn 1", "ended None", "ended why"]
    assert not bench.lane.is_free


async def test_what_is_withdrawn_before_it_is_open_never_arrives() -> None:
    bench = Bench()
    for token in ("1", "2"):
        bench.lane.on_message(Delivery(message(), token, 1))
    bench.lane.on_withdrawn("1")
    await bench.open()
    bench.lane.release_early()
    assert bench.owner.told == ["arrived 2"]


async def test_an_answer_is_for_what_is_leased_here() -> None:
    bench = Bench()
    await bench.open()
    stranger = Delivery(message(), "9", 1)
    answers = (bench.lane.ack, bench.lane.reject, bench.lane.give_back, bench.lane.expire)
    assert [answer(stranger) for answer in answers] == [False] * 4
    assert bench.lane.ack(bench.lease("1"))
    assert bench.lane.reject(bench.lease("2"))
    assert (bench.connector.latest.acked, bench.connector.latest.rejected) == (["1"], ["2"])
    bench.lane.returns = False
    assert bench.lane.give_back(bench.lease("3"))
    assert bench.lane.returns
    assert bench.connector.latest.nacked == []


@pytest.mark.parametrize("takes", [True, False])
async def test_one_that_stays_gives_back_and_goes_on(takes: bool) -> None:
    bench = Bench(stays=True)
    await bench.open()
    bench.connector.latest.takes = takes
    assert bench.lane.give_back(bench.lease("1"))
    assert bench.connector.latest.nacked == ["1"]
    assert not bench.lane.returns
    assert bench.lane.expire(bench.lease("2"))
    assert bench.lane.returns


async def test_over_several_brokers_one_goes_back_without_the_others() -> None:
    bench = Bench()
    await bench.open()
    one, other = bench.lease("1"), bench.lease("2")
    assert bench.lane.give_back(one)
    assert bench.connector.latest.left == ["1"]
    assert bench.lane.returns
    assert not bench.lane.is_idle
    assert bench.lane.give_back(other)
    assert bench.connector.latest.left == ["1"], "the last one goes back with the lane"
    assert bench.connector.latest.nacked == []


async def test_closed_while_it_opens_it_leaves_nothing() -> None:
    bench = Bench()
    bench.connector.open.clear()
    opening = asyncio.ensure_future(bench.open())
    await turns()
    await bench.lane.close()
    bench.connector.open.set()
    await opening
    assert bench.connector.latest.closed == 1
    assert not bench.lane.is_free
    await bench.lane.close()
    assert bench.connector.latest.closed == 1


async def test_after_its_end_nothing_arrives() -> None:
    bench = Bench()
    await bench.open()
    await bench.lane.close()
    bench.connector.latest.deliver(b"late")
    assert bench.owner.told == []
