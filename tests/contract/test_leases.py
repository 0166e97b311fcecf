"""Leases over every kind of connector: what a worker is promised does not depend on the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from app.connectors.base import Destination
from app.gateway.leases import Lease
from app.gateway.stream import Counts
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from tests.contract.conftest import WAIT, Site
from tests.contract.test_connectors import consume, publish


@dataclass
class Workers:
    site: Site
    takings: Takings
    jobs: Destination

    async def take(self, most: int = 1, *, seconds: float = 60, wait: float = WAIT) -> list[Lease]:
        return await self.takings.take(self.jobs, self.site.connector, most=most, seconds=seconds, wait=wait)

    async def gather(self, number: int) -> list[Lease]:
        """As many as there have to be, however many answers that takes."""
        leases: list[Lease] = []
        async with asyncio.timeout(2 * WAIT):
            while len(leases) < number:
                leases += await self.take(number - len(leases))
        return leases

    def ack(self, *leases: Lease) -> list[str]:
        return [self.takings.ack(lease.mq_uri, self.takings.token(lease)) for lease in leases]

    def nack(self, lease: Lease, *, requeue: bool = True, delay: float = 0) -> str:
        return self.takings.nack(lease.mq_uri, self.takings.token(lease), requeue=requeue, delay=delay)


def bodies(leases: list[Lease]) -> list[bytes]:
    return sorted(lease.delivery.message.body for lease in leases)


@contextlib.asynccontextmanager
async def employed(site: Site, linger: float = 60) -> AsyncIterator[Workers]:
    takings = Takings("here", Metrics(), lambda _uri: Counts(), lambda _size: None, linger=linger)
    yield Workers(site, takings, site.queue())
    await takings.close(WAIT)
    assert takings.buffered() == 0


@pytest.fixture
async def workers(site: Site) -> AsyncIterator[Workers]:
    async with employed(site) as made:
        yield made


async def test_what_is_acked_is_gone_and_what_is_not_comes_again(workers: Workers) -> None:
    sent = [b"%02d" % number for number in range(20)]
    await publish(workers.site, workers.jobs, *sent)
    leases = await workers.gather(20)
    assert bodies(leases) == sent
    assert not any(lease.delivery.message.redelivered for lease in leases)
    assert set(workers.ack(*leases[:15])) == {"done"}
    assert {workers.nack(lease) for lease in leases[15:]} == {"done"}
    again = await workers.gather(5)
    assert bodies(again) == bodies(leases[15:])
    assert {lease.delivery.message.redelivered for lease in again} == {workers.site.marks_given_back}
    assert set(workers.ack(*again)) == {"done"}
    assert await workers.take(10, wait=0.5) == []


async def test_giving_one_back_leaves_the_others_leased(workers: Workers) -> None:
    await publish(workers.site, workers.jobs, b"1", b"2", b"3")
    first, second, third = await workers.gather(3)
    assert workers.nack(second) == "done"
    (again,) = await workers.take(3)
    assert bodies([again]) == bodies([second])
    assert workers.ack(first, third, again) == ["done"] * 3
    assert await workers.take(3, wait=0.5) == []


async def test_a_lease_that_runs_out_comes_again(workers: Workers) -> None:
    await publish(workers.site, workers.jobs, b"1")
    (lease,) = await workers.take(seconds=0.2)
    (again,) = await workers.take()
    assert again.delivery.message.redelivered is workers.site.marks_given_back
    assert workers.ack(lease, again) == ["expired", "done"]


async def test_a_worker_in_a_loop_needs_no_new_subscription(workers: Workers) -> None:
    await publish(workers.site, workers.jobs, *(b"%02d" % number for number in range(30)))
    taker = None
    for number in range(30):
        (lease,) = await workers.take()
        assert lease.delivery.message.body == b"%02d" % number
        taker = workers.takings._takers[workers.jobs.uri, None]
        assert len(taker.lanes) == 1
        assert workers.ack(lease) == ["done"]


async def test_what_nobody_takes_is_soon_there_for_others(site: Site) -> None:
    async with employed(site, linger=0.2) as workers:
        await publish(site, workers.jobs, b"1", b"2")
        (lease,) = await workers.take()
        assert workers.ack(lease) == ["done"]
        recorder, subscription = await consume(site, workers.jobs)
        delivery = await recorder.next()
        assert delivery.message.body == b"2"
        assert subscription.ack(delivery)
        await subscription.close(WAIT)


async def test_a_refused_message_does_not_come_again(workers: Workers) -> None:
    await publish(workers.site, workers.jobs, b"poison", b"next")
    (lease,) = await workers.take()
    assert workers.nack(lease, requeue=False) == "done"
    (other,) = await workers.take()
    assert workers.ack(other) == ["done"]
    assert await workers.take(wait=0.5) == []


async def test_at_the_end_everything_is_back(site: Site) -> None:
    async with employed(site) as workers:
        await publish(site, workers.jobs, b"1", b"2")
        (lease,) = await workers.take()
        await workers.takings.close(WAIT)
        assert workers.ack(lease) == ["expired"]
        recorder, subscription = await consume(site, workers.jobs)
        found = [await recorder.next() for _ in range(2)]
        assert sorted(each.message.body for each in found) == [b"1", b"2"]
        await subscription.close(WAIT)
