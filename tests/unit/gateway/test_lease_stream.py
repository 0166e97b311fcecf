"""Streams of Queues whose events are leases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.errors import BrokerUnavailable, Overloaded
from app.domain.uri import MqUri
from app.gateway import takings as takings_module
from app.gateway.lease_stream import LeaseReader
from app.gateway.stream import Counts, Format, StreamLease
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from tests.unit.gateway.fakes import FakeConnector, FakeSubscription, queue, turns
from tests.unit.gateway.test_takings import until
from tests.unit.wire.event_source import EventSource

JOBS = queue(prefetch=3)


class Bench:
    """A reader over one connector."""

    def __init__(self, form: Format = "data", seconds: float = 60) -> None:
        self.counts = Counts()
        self.left: list[LeaseReader] = []
        self.grown = 0
        self.metrics = Metrics()
        self.takings = Takings("here", self.metrics, lambda _uri: Counts(), lambda _size: None, linger=60)
        self.connector = FakeConnector()
        lease = StreamLease("/gw/mq/svc/Queues/jobs/ack", seconds)
        self.reader = LeaseReader(form, lease, self.takings, self.left.append, self._grew)

    def _grew(self, size: int) -> None:
        self.grown += size

    async def open(self) -> None:
        await self.reader.open(JOBS, self.connector, lambda: self.counts, 5)

    @property
    def lanes(self) -> list[FakeSubscription]:
        return self.connector.subscriptions

    def take(self) -> list[tuple[str, str]]:
        """Take a batch and hand it over; lease and data of its events."""
        batch = self.reader.take()
        self.reader.handed_over(batch)
        return [(event.last_event_id, event.data) for event in EventSource.read(batch.data).events]

    def ack(self, token: str, uri: MqUri = JOBS.uri) -> str:
        return self.takings.ack(uri, token)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.open()
    yield made
    await made.reader.close()
    assert made.reader.buffered == made.grown == 0
    assert len(made.takings.leases) == 0
    assert made.takings._lanes() == 0


async def test_the_first_event_says_how_to_answer(bench: Bench) -> None:
    (event,) = EventSource.read(bench.reader.opening).events
    assert event.type == "lease"
    assert json.loads(event.data) == {"ack_url": "/gw/mq/svc/Queues/jobs/ack", "prefetch": 3, "lease_seconds": 60}
    assert [(asked["prefetch"], asked["acknowledge"]) for asked in bench.connector.asked] == [(1, True)] * 3


async def test_each_event_is_a_lease(bench: Bench) -> None:
    bench.lanes[0].deliver(b"a")
    bench.lanes[1].deliver(b"b")
    assert bench.reader.buffered == bench.grown == 2
    (first, a), (second, b) = bench.take()
    assert (a, b) == ("a", "b")
    assert bench.reader.buffered == bench.grown == 0
    assert bench.counts.delivered == 2
    assert bench.lanes[0].acked == []
    assert bench.takings.leases.of(JOBS.uri) == 2
    assert bench.ack(second) == "done"
    assert (bench.lanes[0].acked, bench.lanes[1].acked) == ([], ["1"])
    assert bench.ack(first) == "done"
    bench.lanes[0].deliver(b"c")
    ((third, c),) = bench.take()
    assert c == "c"
    assert third not in (first, second)


async def test_an_envelope_has_the_lease_as_its_id() -> None:
    bench = Bench("envelope")
    await bench.open()
    bench.lanes[0].deliver(b"a")
    ((token, data),) = bench.take()
    assert json.loads(data)["id"] == token
    await bench.reader.close()


async def test_what_is_not_done_goes_back_and_may_come_again(bench: Bench) -> None:
    bench.lanes[0].deliver(b"a")
    ((token, _),) = bench.take()
    assert bench.takings.nack(JOBS.uri, token, requeue=True, delay=0) == "done"
    assert bench.lanes[0].nacked == ["1"]
    assert not bench.lanes[0].closed
    bench.lanes[0].deliver(b"a")
    assert [data for _, data in bench.take()] == ["a"]


async def test_who_answers_nothing_loses_the_stream() -> None:
    bench = Bench(seconds=0.02)
    await bench.open()
    bench.lanes[0].deliver(b"a")
    ((token, _),) = bench.take()
    async with asyncio.timeout(5):
        await bench.reader.ready()
    assert bench.reader.take().end == "slow"
    await turns()
    assert [(lane.closed, lane.nacked) for lane in bench.lanes] == [(1, [])] * 3
    assert bench.ack(token) == "expired"
    await bench.reader.close()
    assert [lane.closed for lane in bench.lanes] == [1, 1, 1]


async def test_who_forgets_one_gets_as_many_as_are_answered(bench: Bench) -> None:
    bench.lanes[0].deliver(b"forgotten")
    bench.lanes[1].deliver(b"answered")
    (forgotten, _), (answered, _) = bench.take()
    bench.lanes[2].deliver(b"waits")
    assert bench.takings.renew(JOBS.uri, forgotten, 0.01)[0] == "done"
    async with asyncio.timeout(5):
        while not bench.lanes[0].closed:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
    assert [lane.closed for lane in bench.lanes] == [1, 0, 1]
    assert bench.reader.buffered == 0
    assert bench.ack(answered) == "done"
    bench.lanes[1].deliver(b"next")
    assert [data for _, data in bench.take()] == ["next"]


async def test_what_comes_on_a_lane_that_is_being_closed_goes_back_with_it(bench: Bench) -> None:
    bench.lanes[0].deliver(b"forgotten")
    bench.lanes[2].deliver(b"answered")
    (forgotten, _), (answered, _) = bench.take()
    bench.takings.renew(JOBS.uri, forgotten, 0.01)
    async with asyncio.timeout(5):
        while len(bench.takings.leases) > 1:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
    bench.lanes[1].deliver(b"late")
    assert bench.reader.buffered == bench.grown == 0
    await turns()
    assert [lane.closed for lane in bench.lanes] == [1, 1, 0]
    assert bench.ack(answered) == "done"


async def test_a_client_that_leaves_gives_back_all(bench: Bench) -> None:
    bench.lanes[0].deliver(b"leased")
    ((token, _),) = bench.take()
    bench.lanes[1].deliver(b"on its way")
    bench.reader.take()
    bench.lanes[2].deliver(b"waiting")
    await bench.reader.close()
    assert bench.left == [bench.reader]
    assert [lane.closed for lane in bench.lanes] == [1, 1, 1]
    assert [lane.nacked for lane in bench.lanes] == [[], [], []]
    assert bench.ack(token) == "expired"
    assert b'leases_ended_total{reason="left",service="svc"} 2.0' in bench.metrics.render()


async def test_a_lost_link_voids_what_is_here_and_the_stream_goes_on(bench: Bench) -> None:
    bench.lanes[0].deliver(b"leased")
    ((token, _),) = bench.take()
    bench.lanes[1].deliver(b"waiting")
    for lane in bench.lanes:
        lane.listener.on_lost()
        lane.listener.on_restored()
    assert bench.ack(token) == "expired"
    assert bench.take() == []
    assert bench.reader.buffered == 0
    bench.lanes[0].deliver(b"again")
    assert [data for _, data in bench.take()] == ["again"]


async def test_what_is_withdrawn_is_not_sent_and_not_leased(bench: Bench) -> None:
    bench.lanes[0].deliver(b"leased")
    ((token, _),) = bench.take()
    bench.lanes[0].listener.on_withdrawn("1")
    assert bench.ack(token) == "expired"
    bench.lanes[1].deliver(b"waiting")
    bench.lanes[1].listener.on_withdrawn("1")
    assert bench.take() == []


async def test_a_cancelled_subscription_ends_the_stream(bench: Bench) -> None:
    bench.lanes[0].listener.on_cancelled("deleted")
    assert bench.reader.take().end == "cancelled"
    bench.lanes[1].deliver(b"too late")
    assert bench.reader.buffered == 0


async def test_too_much_memory_ends_the_stream(bench: Bench) -> None:
    bench.lanes[0].deliver(b"12345")
    bench.lanes[1].deliver(b"678")
    assert bench.reader.give_way() == 3
    batch = bench.reader.take()
    assert batch.end == "memory"
    assert b"12345" in batch.data
    bench.reader.handed_over(batch)


async def test_messages_before_the_receipt() -> None:
    class Early(FakeConnector):
        async def subscribe(self, *args: Any, **options: Any) -> Any:
            subscription = await super().subscribe(*args, **options)
            self.latest.deliver(b"early")
            return subscription

    bench = Bench()
    bench.connector = Early()
    await bench.open()
    found = bench.take()
    assert [data for _, data in found] == ["early"] * 3
    assert {bench.ack(token) for token, _ in found} == {"done"}
    await bench.reader.close()


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_stream_that_cannot_be_opened_leaves_nothing(at: int) -> None:
    class Refusing(FakeConnector):
        async def subscribe(self, *args: Any, **options: Any) -> Any:
            if len(self.asked) == at - 1:
                self.refusals = [BrokerUnavailable("down")]
            return await super().subscribe(*args, **options)

    bench = Bench()
    bench.connector = Refusing()
    with pytest.raises(BrokerUnavailable):
        await bench.open()
    await turns()
    assert len(bench.connector.asked) == (1 if at == 1 else 3)
    assert all(lane.closed for lane in bench.lanes)
    assert bench.takings._lanes() == 0


async def test_a_client_that_leaves_while_it_is_opened() -> None:
    bench = Bench()
    bench.connector.open.clear()
    opening = asyncio.ensure_future(bench.open())
    await turns()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert bench.takings._lanes() == 0


async def test_lanes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takings_module, "MAX_LANES", 5)
    first, second = Bench(), Bench()
    second.takings = second.reader._takings = first.takings
    await first.open()
    with pytest.raises(Overloaded):
        await second.open()
    await first.reader.close()
    await second.open()
    await second.reader.close()


async def test_no_more_than_the_prefetch_is_out_also_where_lanes_bring_more(bench: Bench) -> None:
    """As over several brokers, each of which sends one to a lane."""
    for lane in bench.lanes:
        lane.deliver(b"1", b"2")
    first, second, third = bench.take()
    assert bench.take() == []
    assert bench.reader.buffered == 3
    ready = asyncio.ensure_future(bench.reader.ready())
    await turns()
    assert not ready.done()
    assert bench.ack(second[0]) == "done"
    await asyncio.wait_for(ready, 1)
    (fourth,) = bench.take()
    assert bench.take() == []
    for lane in bench.lanes:
        lane.listener.on_withdrawn("1")  # its broker is gone
    assert [data for _, data in bench.take()] == ["2"]
    assert bench.ack(first[0]) == bench.ack(third[0]) == "expired"
    assert bench.ack(fourth[0]) == "done"


async def test_a_lane_that_ends_with_another_lease_gets_no_more() -> None:
    bench = Bench(seconds=0.05)
    await bench.open()
    bench.lanes[0].deliver(b"a", b"b")
    (first, _), (second, _) = bench.take()
    bench.takings.renew(JOBS.uri, second, 60)
    await until(lambda: bench.lanes[0].left == ["1"])
    bench.lanes[0].deliver(b"c")
    assert bench.take() == []
    assert bench.ack(first) == "expired"
    assert bench.lanes[0].closed == 0
    assert bench.ack(second) == "done"
    await turns()
    assert bench.lanes[0].closed == 1
    await bench.reader.close()
