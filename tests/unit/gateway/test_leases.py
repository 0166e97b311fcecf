"""Leases by themselves: what a worker may say, when they end, what is remembered."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.base import Delivery
from app.gateway import leases as module
from app.gateway.leases import Ending, Lease, Leases
from tests.unit.gateway.fakes import message, queue

JOBS = queue().uri
OTHERS = queue("others").uri


class Holder:
    """Writes down what becomes of the messages."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.takes = True
        self.news = asyncio.Event()

    def _note(self, what: str, delivery: Delivery) -> bool:
        self.told.append((what, delivery.token))
        self.news.set()
        return self.takes

    def ack(self, delivery: Delivery) -> bool:
        return self._note("ack", delivery)

    def reject(self, delivery: Delivery) -> bool:
        return self._note("reject", delivery)

    def give_back(self, delivery: Delivery) -> bool:
        return self._note("give back", delivery)

    def expire(self, delivery: Delivery) -> bool:
        return self._note("expire", delivery)


class Bench:
    def __init__(self) -> None:
        self.endings: list[tuple[int, Ending]] = []
        self.leases = Leases(lambda lease, ending: self.endings.append((lease.number, ending)))
        self.holder = Holder()
        self._tokens = 0

    def grant(self, seconds: float = 60, body: bytes = b"body") -> Lease:
        self._tokens += 1
        delivery = Delivery(message(body, JOBS, headers={"a": "b"}), f"t{self._tokens}", 1)
        return self.leases.grant(JOBS, self.holder, delivery, seconds)

    async def told(self, number: int) -> None:
        async with asyncio.timeout(5):
            while len(self.holder.told) < number:
                self.holder.news.clear()
                await self.holder.news.wait()


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_an_acked_lease_is_done_and_done_again(bench: Bench) -> None:
    lease = bench.grant()
    assert bench.leases.of(JOBS) == bench.leases.of_service("svc") == len(bench.leases) == 1
    assert bench.leases.ack(JOBS, lease.number) == "done"
    assert bench.leases.ack(JOBS, lease.number) == "done"
    assert bench.leases.nack(JOBS, lease.number, requeue=True, delay=0) == "expired"
    assert bench.holder.told == [("ack", "t1")]
    assert bench.endings == [(lease.number, "acked")]
    assert lease.over
    assert bench.leases.of(JOBS) == bench.leases.of_service("svc") == len(bench.leases) == 0


async def test_an_ack_that_crosses_an_epoch_is_expired(bench: Bench) -> None:
    lease = bench.grant()
    bench.holder.takes = False
    assert bench.leases.ack(JOBS, lease.number) == "expired"
    assert bench.leases.ack(JOBS, lease.number) == "expired"
    assert bench.endings == [(lease.number, "lost")]


async def test_a_lease_is_of_its_destination(bench: Bench) -> None:
    lease = bench.grant()
    assert bench.leases.ack(OTHERS, lease.number) == "expired"
    assert bench.leases.find(OTHERS, lease.number) is None
    assert bench.holder.told == []


async def test_a_nack_gives_back_or_refuses(bench: Bench) -> None:
    back, refused = bench.grant(), bench.grant()
    assert bench.leases.nack(JOBS, back.number, requeue=True, delay=0) == "done"
    assert bench.leases.nack(JOBS, refused.number, requeue=False, delay=9) == "done"
    assert bench.holder.told == [("give back", "t1"), ("reject", "t2")]
    assert bench.endings == [(back.number, "nacked"), (refused.number, "rejected")]
    assert bench.leases.nack(JOBS, back.number, requeue=True, delay=0) == "done"
    assert bench.leases.nack(JOBS, refused.number, requeue=False, delay=0) == "done"
    assert bench.leases.nack(JOBS, refused.number, requeue=True, delay=0) == "expired"


async def test_a_nack_with_a_delay_holds_the_message_for_it(bench: Bench) -> None:
    lease = bench.grant()
    assert bench.leases.nack(JOBS, lease.number, requeue=True, delay=0.05) == "done"
    assert bench.holder.told == []
    assert bench.leases.nack(JOBS, lease.number, requeue=True, delay=0) == "done"
    assert bench.leases.ack(JOBS, lease.number) == "expired"
    assert bench.leases.find(JOBS, lease.number) is None
    await bench.told(1)
    assert bench.holder.told == [("give back", "t1")]
    assert bench.endings == [(lease.number, "nacked")]


async def test_a_lease_that_runs_out_goes_back(bench: Bench) -> None:
    late, soon = bench.grant(60), bench.grant(0.02)
    await bench.told(1)
    assert bench.holder.told == [("expire", "t2")]
    assert bench.endings == [(soon.number, "expired")]
    assert bench.leases.ack(JOBS, soon.number) == "expired"
    assert bench.leases.ack(JOBS, late.number) == "done"


async def test_a_renewed_lease_lasts(bench: Bench) -> None:
    renewed, other = bench.grant(0.02), bench.grant(0.04)
    until = renewed.expires_at
    bench.leases.renew(renewed, 60)
    assert renewed.expires_at > until
    assert renewed.seconds == 60
    await bench.told(1)
    assert bench.endings == [(other.number, "expired")]
    bench.leases.renew(renewed, 0.01)  # shorter is as good
    await bench.told(2)
    assert bench.endings[1:] == [(renewed.number, "expired")]


async def test_the_schedule_does_not_grow_with_renewals(bench: Bench) -> None:
    lease = bench.grant()
    for _ in range(5 * module._MAX_STALE):
        bench.leases.renew(lease, 60)
    assert len(bench.leases._schedule) <= module._MAX_STALE + 3


async def test_only_so_many_ends_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    leases = [bench.grant() for _ in range(3)]
    for lease in leases:
        bench.leases.ack(JOBS, lease.number)
    assert [bench.leases.ack(JOBS, lease.number) for lease in leases] == ["expired", "done", "done"]


async def test_an_answered_lease_holds_no_body(bench: Bench) -> None:
    lease = bench.grant(body=b"large")
    assert lease.size == 5
    lease.forget_message()
    assert lease.size == 0
    assert not lease.delivery.message.headers
    bench.leases.ack(JOBS, lease.number)
    assert bench.holder.told == [("ack", "t1")]


async def test_the_end_of_all(bench: Bench) -> None:
    first, second, third = bench.grant(), bench.grant(), bench.grant()
    bench.leases.give_back([first, first])
    bench.leases.void(second)
    bench.leases.void(second)
    bench.leases.close()
    assert bench.endings == [(first.number, "left"), (second.number, "lost"), (third.number, "lost")]
    assert bench.holder.told == [("give back", "t1")]
    bench.leases.close()
