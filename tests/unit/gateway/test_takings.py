"""Taking from Queues: lanes open while somebody waits, and messages go where they belong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from app.connectors.base import Destination
from app.domain.errors import BrokerRejected, BrokerUnavailable, Internal, NotSupportedByBroker, Overloaded
from app.domain.lease import UNKNOWN, Settled, Settlement
from app.domain.uri import MqUri
from app.gateway import takings as module
from app.gateway.leases import Lease
from app.gateway.stream import Counts
from app.gateway.take import MAX_BYTES
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from tests.unit.gateway.fakes import FakeConnector, FakeSubscription, queue, topic, turns

WAIT = 5.0


class Bench:
    """Takings over one connector."""

    def __init__(self, linger: float = 60) -> None:
        self.metrics = Metrics()
        self.counts: dict[MqUri, Counts] = {}
        self.grown = 0
        self.takings = Takings("here", self.metrics, self._count, self._grew, linger=linger)
        self.connector = FakeConnector()
        self.jobs = queue()

    def _count(self, uri: MqUri) -> Counts:
        return self.counts.setdefault(uri, Counts())

    def _grew(self, size: int) -> None:
        self.grown += size

    @property
    def lanes(self) -> list[FakeSubscription]:
        return self.connector.subscriptions

    @property
    def open_lanes(self) -> list[FakeSubscription]:
        return [lane for lane in self.lanes if not lane.closed]

    async def take(
        self, most: int = 1, *, seconds: float = 60, wait: float = WAIT, destination: Destination | None = None
    ) -> list[Lease]:
        return await self.takings.take(destination or self.jobs, self.connector, most=most, seconds=seconds, wait=wait)

    async def taking(self, most: int = 1, **options: Any) -> asyncio.Task[list[Lease]]:
        """A take that waits; its first lane is open."""
        task = asyncio.ensure_future(self.take(most, **options))
        await turns(8)
        return task

    async def deliver(self, *bodies: bytes) -> None:
        """Each on the first lane that waits for a message."""
        for body in bodies:
            await until(lambda: any(lane.waits for lane in self.open_lanes))
            next(lane for lane in self.open_lanes if lane.waits).deliver(body)

    async def taken(self, *bodies: bytes) -> list[Lease]:
        """Messages that came one on each lane, taken and answered."""
        task = await self.taking(len(bodies))
        await self.deliver(*bodies)
        leases = await task
        self.takings.encoded(leases)
        return leases

    def ack(self, lease: Lease) -> str:
        return self.takings.ack(lease.mq_uri, self.takings.token(lease))

    def nack(self, lease: Lease, *, delay: float = 0, requeue: bool = True) -> str:
        return self.takings.nack(lease.mq_uri, self.takings.token(lease), requeue=requeue, delay=delay)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.takings.close(1)
    assert made.takings.buffered() == 0
    assert made.grown == 0


def bodies(leases: list[Lease]) -> list[bytes]:
    return [lease.delivery.message.body for lease in leases]


async def test_one_message_is_taken_leased_and_acked(bench: Bench) -> None:
    task = await bench.taking()
    asked = {"uri": bench.jobs.uri, "acknowledge": True, "prefetch": 1, "timeout": 5.0, "start": None}
    assert bench.connector.asked == [asked]
    bench.lanes[0].deliver(b"one")
    (lease,) = await task
    assert lease.delivery.message.body == b"one"
    assert bench.takings.buffered() == bench.takings.buffered("svc") == 3
    bench.takings.encoded([lease])
    bench.takings.delivered([lease])
    assert bench.takings.buffered() == 0
    assert bench.counts[bench.jobs.uri].delivered == 1
    assert bench.takings.leases.of(bench.jobs.uri) == 1
    assert bench.ack(lease) == "done"
    assert bench.lanes[0].acked == ["1"]
    assert bench.ack(lease) == "done"
    assert bench.lanes[0].acked == ["1"]


async def test_a_worker_that_comes_again_finds_its_next_message_here(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    bench.ack(lease)
    bench.lanes[0].deliver(b"2")
    assert bench.takings.buffered() == 1
    (again,) = await bench.take(wait=0)
    assert again.delivery.message.body == b"2"
    assert len(bench.lanes) == 1


async def test_an_empty_queue_gives_nothing(bench: Bench) -> None:
    assert await bench.take(wait=0) == []
    assert await bench.take(wait=0.01) == []
    assert len(bench.open_lanes) == 1


async def test_lanes_grow_while_all_are_full(bench: Bench) -> None:
    task = await bench.taking(30)
    for wanted in (1, 9, 18, 30):
        assert len(bench.lanes) == wanted
        for lane in bench.lanes:
            if lane.waits:
                lane.deliver(b"x")
        await turns(8)
    assert len(await task) == 30
    assert len(bench.lanes) == 30


async def test_what_is_there_is_the_answer_soon_after_the_first_message(bench: Bench) -> None:
    task = await bench.taking(100)
    await bench.deliver(b"1", b"2")
    assert bodies(await task) == [b"1", b"2"]


async def test_an_answer_has_an_end_in_bytes(bench: Bench) -> None:
    task = await bench.taking(3)
    await bench.deliver(b"small")
    await turns(8)
    for lane in bench.lanes[1:]:
        lane.deliver(bytes(MAX_BYTES))
    assert [len(body) for body in bodies(await task)] == [5, MAX_BYTES]
    assert bench.takings.buffered() == 5 + 2 * MAX_BYTES


async def test_who_waits_first_is_served_first(bench: Bench) -> None:
    first, second = await bench.taking(), await bench.taking()
    bench.lanes[0].deliver(b"1")
    await turns(8)
    assert first.done()
    assert not second.done()
    bench.lanes[1].deliver(b"2")
    assert bodies(await second) == [b"2"]
    assert bodies(await first) == [b"1"]


async def test_messages_before_the_receipt_are_taken_after_it(bench: Bench) -> None:
    class Early(FakeConnector):
        async def subscribe(self, *args: Any, **options: Any) -> Any:
            subscription = await super().subscribe(*args, **options)
            self.latest.deliver(b"early")
            return subscription

    bench.connector = Early()
    (lease,) = await bench.take()
    assert lease.delivery.message.body == b"early"
    assert bench.ack(lease) == "done"
    assert bench.lanes[0].acked == ["1"]


async def test_what_the_broker_says_no_to(bench: Bench) -> None:
    bench.connector.refusals = [BrokerRejected("no")]
    with pytest.raises(BrokerRejected):
        await bench.take()
    bench.connector.refusals = [BrokerUnavailable("down")]
    with pytest.raises(BrokerUnavailable):
        await bench.take(20)
    assert not bench.takings._takers[bench.jobs.uri, None].lanes


async def test_a_defect_of_a_connector_leaves_nobody_waiting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.connector.refusals = [ZeroDivisionError("a defect")]
    with pytest.raises(Internal):
        await bench.take()
    assert "a defect" in caplog.text
    assert not bench.takings._takers[bench.jobs.uri, None].lanes


async def test_a_refusal_that_leaves_lanes_is_no_failure(bench: Bench) -> None:
    task = await bench.taking(3)
    bench.connector.refusals = [BrokerRejected("no")]
    await bench.deliver(b"1", b"2")
    assert len(bench.lanes) == 2
    assert bodies(await task) == [b"1", b"2"]


async def test_a_given_back_message_ends_its_lane_and_no_other(bench: Bench) -> None:
    first, second = await bench.taken(b"1", b"2")
    assert bench.nack(first) == "done"
    await turns()
    assert [lane.closed for lane in bench.lanes] == [1, 0]
    assert bench.ack(second) == "done"
    assert bench.nack(first) == "done"
    assert bench.ack(first) == "expired"


async def test_a_refused_message_leaves_its_lane(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    assert bench.nack(lease, requeue=False) == "done"
    assert bench.lanes[0].rejected == ["1"]
    assert not bench.lanes[0].closed


async def test_a_lease_that_runs_out_goes_back(bench: Bench) -> None:
    task = await bench.taking(seconds=0.05)
    bench.lanes[0].deliver(b"1")
    (lease,) = await task
    await until(lambda: lease.over)
    await turns()
    assert bench.lanes[0].closed
    assert bench.ack(lease) == "expired"


async def test_renewing(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    token = bench.takings.token(lease)
    assert bench.takings.renew(bench.jobs.uri, token, 10) == ("done", lease.expires_at)
    assert lease.seconds == 10
    assert bench.takings.renew(bench.jobs.uri, token, None) == ("done", lease.expires_at)
    assert lease.seconds == 10
    bench.ack(lease)
    assert bench.takings.renew(bench.jobs.uri, token, None) == ("expired", None)


async def test_a_token_holds_here_for_its_destination_and_unchanged(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    token = bench.takings.token(lease)
    others = queue("others").uri
    for uri, text in ((others, token), (bench.jobs.uri, token[:-1]), (bench.jobs.uri, "x" + token)):
        assert bench.takings.ack(uri, text) == "unknown"
        assert bench.takings.nack(uri, text, requeue=True, delay=0) == "unknown"
        assert bench.takings.renew(uri, text, None) == ("unknown", None)
    elsewhere = Takings("there", Metrics(), lambda _uri: Counts(), lambda _size: None, linger=1)
    assert elsewhere.ack(bench.jobs.uri, token) == "unknown"
    assert bench.ack(lease) == "done"


async def test_replicas_with_one_key_know_whose_a_lease_is(bench: Bench) -> None:
    """And answer for their own only, though the other one's has the number and the destination of one of theirs."""
    here, there = (
        Takings(name, Metrics(), lambda _uri: Counts(), lambda _size: None, linger=1, key=b"k" * 32)
        for name in ("here", "there")
    )
    (lease,) = await bench.taken(b"1")
    uri, token = lease.mq_uri, there.token(lease)
    here.leases.grant(uri, lease.holder, lease.delivery, 60)
    ack = Settlement(verb="ack", mq_uri=uri)
    assert here.other_owner(ack, token) == "there"
    assert there.other_owner(ack, token) is None
    assert here.other_owner(Settlement(verb="ack", mq_uri=queue("others").uri), token) is None
    assert bench.takings.other_owner(ack, token) is None  # another key
    for text in (token[:-1], "x" + token, "nonsense", ""):
        assert here.other_owner(ack, text) is None
    assert here.settle(ack, token) == UNKNOWN
    assert len(here.leases) == 1
    here.leases.close()


async def test_a_settlement_says_it_all(bench: Bench) -> None:
    one, two = await bench.taken(b"1", b"2")
    uri = bench.jobs.uri
    renewed = bench.takings.settle(Settlement(verb="renew", mq_uri=uri, seconds=10), bench.takings.token(one))
    assert renewed == Settled("done", one.expires_at)
    assert bench.takings.settle(Settlement(verb="ack", mq_uri=uri), bench.takings.token(one)) == Settled("done")
    nack = Settlement(verb="nack", mq_uri=uri, requeue=False)
    assert bench.takings.settle(nack, bench.takings.token(two)) == Settled("done")
    assert bench.takings.settle(Settlement(verb="renew", mq_uri=uri), bench.takings.token(two)) == Settled("expired")


# What the connector tells.


async def test_after_a_lost_link_a_lease_is_expired(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    bench.lanes[0].listener.on_lost()
    bench.lanes[0].listener.on_restored()
    assert bench.ack(lease) == "expired"
    assert bench.lanes[0].acked == []
    assert bench.takings.leases.of(bench.jobs.uri) == 0


async def test_who_waits_when_the_link_is_lost_waits_on(bench: Bench) -> None:
    task = await bench.taking(2)
    await bench.deliver(b"lost")
    await turns(8)
    for lane in list(bench.lanes):
        lane.listener.on_lost()
    await turns(8)
    assert [lane.closed for lane in bench.lanes] == [1, 1, 0]
    bench.lanes[2].deliver(b"again")
    assert bodies(await task) == [b"again"]


async def test_an_ack_that_the_connector_does_not_take_is_expired(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    bench.lanes[0].takes = False
    assert bench.ack(lease) == "expired"


async def test_a_withdrawn_message_is_no_longer_leased(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    bench.lanes[0].listener.on_withdrawn("1")
    assert bench.ack(lease) == "expired"
    bench.lanes[0].deliver(b"parked")
    bench.lanes[0].listener.on_withdrawn("2")
    assert bench.takings.buffered() == 0
    bench.lanes[0].deliver(b"3")
    assert bodies(await bench.take(wait=0)) == [b"3"]


async def test_a_cancelled_subscription_ends_leases_and_waiting(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    task = await bench.taking()
    for lane in bench.lanes:
        lane.listener.on_cancelled("deleted")
    with pytest.raises(BrokerRejected, match="deleted"):
        await task
    assert bench.ack(lease) == "expired"


# Time and room.


async def test_a_message_without_a_taker_goes_back() -> None:
    bench = Bench(linger=0.1)
    (lease,) = await bench.taken(b"1")
    bench.ack(lease)
    bench.lanes[0].deliver(b"2")
    await until(lambda: bench.lanes[0].closed == 1)
    assert bench.takings.buffered() == bench.grown == 0


async def test_what_comes_on_a_lane_that_is_being_closed_goes_back_with_it() -> None:
    bench = Bench(linger=0.05)
    assert await bench.take(wait=0) == []
    (taker,) = bench.takings._takers.values()
    async with asyncio.timeout(WAIT):
        while taker.lanes:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
    bench.lanes[0].deliver(b"late")
    assert bench.takings.buffered() == bench.grown == 0
    task = await bench.taking()
    bench.lanes[1].deliver(b"late")
    (lease,) = await task
    assert bench.lanes[0].closed
    assert bench.ack(lease) == "done"


async def test_a_lane_with_a_lease_stays_as_long_as_it() -> None:
    bench = Bench(linger=0.05)
    first, second = await bench.taken(b"1", b"2")
    bench.ack(first)
    await until(lambda: bench.lanes[0].closed == 1)
    await asyncio.sleep(0.1)
    assert not bench.lanes[1].closed
    assert bench.ack(second) == "done"
    await until(lambda: bench.lanes[1].closed == 1)
    assert await bench.take(wait=0) == []


async def test_lanes_for_who_waits_stay_and_others_go() -> None:
    bench = Bench(linger=0.1)
    for lease in await bench.taken(*[b"x"] * 5):
        bench.ack(lease)
    assert len(bench.open_lanes) == 5
    task = await bench.taking(2, wait=WAIT)
    await until(lambda: len(bench.open_lanes) == 2)
    await asyncio.sleep(0.25)
    assert len(bench.open_lanes) == 2
    bench.open_lanes[0].deliver(b"1")
    assert bodies(await task) == [b"1"]
    await until(lambda: len(bench.open_lanes) == 1)


async def test_memory_is_freed_of_what_nobody_took(bench: Bench) -> None:
    first, second, third = await bench.taken(b"1", b"2", b"3")
    bench.ack(first)
    bench.ack(second)
    bench.lanes[0].deliver(b"small")
    bench.lanes[1].deliver(b"the largest")
    assert bench.takings.give_way(6) == 11
    assert bench.takings.buffered() == 5
    assert bench.takings.give_way(1000) == 5
    await turns()
    assert [lane.closed for lane in bench.lanes] == [1, 1, 0]
    assert bench.ack(third) == "done"


async def test_more_lanes_than_there_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LANES", 2)
    assert len(await bench.taken(b"1", b"2")) == 2
    with pytest.raises(Overloaded, match="leased"):
        await bench.take()


async def test_a_client_that_leaves_gives_back(bench: Bench) -> None:
    task = await bench.taking(3)
    bench.lanes[0].deliver(b"1")
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert [lane.closed for lane in bench.lanes] == [1, 0, 0]
    assert len(bench.takings.leases) == 0


# Endings.


async def test_at_the_drain_nobody_waits_and_leases_can_be_answered(bench: Bench) -> None:
    first, second = await bench.taken(b"1", b"2")
    bench.ack(first)
    bench.lanes[0].deliver(b"parked")
    waits = await bench.taking(3)  # takes what is parked, and waits for more
    other = await bench.taking(destination=queue("others"))
    bench.takings.stop()
    assert bodies(await waits) == [b"parked"]
    assert await other == []
    assert bench.ack(second) == "done"
    await turns()
    assert [lane.closed for lane in bench.lanes[:2]] == [0, 1]
    assert await bench.take(wait=WAIT) == []


async def test_at_the_end_everything_goes_back(bench: Bench) -> None:
    first, _second = await bench.taken(b"1", b"2")
    bench.ack(first)
    bench.lanes[0].deliver(b"parked")
    opening = asyncio.Event()
    bench.connector.open = opening
    late = await bench.taking(destination=queue("late"))
    closing = asyncio.ensure_future(bench.takings.close(WAIT))
    await turns()
    opening.set()
    await closing
    assert await late == []
    assert [lane.closed for lane in bench.lanes] == [1, 1, 1]
    assert bench.takings.leases.of_service("svc") == 0


async def test_another_configuration_ends_what_was(bench: Bench) -> None:
    (lease,) = await bench.taken(b"1")
    bench.takings.retire(lambda uri: uri == bench.jobs.uri)
    assert bench.ack(lease) == "expired"
    await turns()
    assert bench.lanes[0].closed
    bench.jobs = queue(prefetch=3)
    (again,) = await bench.taken(b"2")
    assert bench.ack(again) == "done"
    bench.jobs = queue(prefetch=4)  # without a word
    await bench.taken(b"3")
    assert [lane.closed for lane in bench.lanes] == [1, 1, 0]


async def test_takers_of_queues_nobody_takes_from_are_forgotten() -> None:
    bench = Bench(linger=0.05)
    for number in range(3):
        assert await bench.take(wait=0, destination=queue(f"q{number}")) == []
    await until(lambda: not bench.open_lanes)
    await turns()
    await bench.take(wait=0)
    assert list(bench.takings._takers) == [(bench.jobs.uri, None)]


async def test_how_leases_ended_is_counted(bench: Bench) -> None:
    first, second = await bench.taken(b"1", b"2")
    bench.ack(first)
    bench.lanes[1].listener.on_lost()
    assert second.over
    text = bench.metrics.render()
    assert b'mq_gateway_leases_ended_total{reason="acked",service="svc"} 1.0' in text
    assert b'mq_gateway_leases_ended_total{reason="lost",service="svc"} 1.0' in text


async def test_what_came_of_another_broker_behind_a_lease_goes_back_alone() -> None:
    bench = Bench(linger=0.1)
    (lease,) = await bench.taken(b"one")
    lane = bench.lanes[0]
    lane.deliver(b"of another")
    assert bench.takings.buffered() == 10
    await until(lambda: lane.left == ["2"])
    assert (bench.takings.buffered(), lane.closed) == (0, 0)
    assert bench.ack(lease) == "done"
    await until(lambda: lane.closed == 1)  # it does not hear of everything any more
    task = await bench.taking()
    bench.lanes[1].deliver(b"of another")
    (again,) = await task
    assert bench.ack(again) == "done"
    await bench.takings.close(1)


async def test_too_much_memory_takes_what_is_behind_leases_too(bench: Bench) -> None:
    (lease,) = await bench.taken(b"one")
    bench.lanes[0].deliver(b"of another")
    assert bench.takings.give_way(5) == 10
    assert bench.lanes[0].left == ["2"]
    assert bench.ack(lease) == "done"


# Durable subscriptions.


def kept(name: str = "archiver") -> Destination:
    return replace(topic("alerts", subscriptions=["archiver", "mailer"]), subscription=name)


class Keeper(FakeConnector):
    """Knows durable subscriptions, each with room for one consumer."""

    has_subscriptions = True

    def is_shared(self, destination: Destination) -> bool:
        return destination.subscription is None


@pytest.fixture
def keeper(bench: Bench) -> Bench:
    bench.connector = Keeper()
    return bench


async def test_subscriptions_of_a_topic_are_apart(keeper: Bench) -> None:
    tasks = [await keeper.taking(destination=kept(name)) for name in ("archiver", "mailer")]
    assert len(keeper.open_lanes) == 2
    for at, lane in enumerate(keeper.lanes):
        lane.deliver(b"%d" % at)
    (one,), (other,) = [await task for task in tasks]
    assert one.mq_uri == other.mq_uri == kept().uri
    takings = keeper.takings
    token = takings.token(one)
    assert takings.ack(one.mq_uri, token) == "unknown"
    assert takings.nack(one.mq_uri, token, "mailer", requeue=True, delay=0) == "unknown"
    assert takings.renew(one.mq_uri, token, 5, "mailer") == ("unknown", None)
    assert takings.renew(one.mq_uri, token, 5, "archiver")[0] == "done"
    assert takings.ack(one.mq_uri, token, "archiver") == "done"
    assert takings.leases.of(kept().uri) == 1


async def test_where_there_may_be_one_consumer_there_is_one(keeper: Bench) -> None:
    first = await keeper.taking(5, destination=kept())
    second = await keeper.taking(destination=kept())
    assert len(keeper.lanes) == 1
    keeper.lanes[0].deliver(b"1")
    (lease,) = await first
    await turns()
    assert len(keeper.lanes) == 1
    assert keeper.takings.ack(lease.mq_uri, keeper.takings.token(lease), "archiver") == "done"
    keeper.lanes[0].deliver(b"2")
    assert len(await second) == 1


async def test_the_next_consumer_comes_when_the_end_of_the_last_is_confirmed(keeper: Bench) -> None:
    first = await keeper.taking(destination=kept())
    keeper.lanes[0].deliver(b"1")
    (lease,) = await first
    keeper.lanes[0].closing.clear()
    token = keeper.takings.token(lease)
    assert keeper.takings.nack(lease.mq_uri, token, "archiver", requeue=True, delay=0) == "done"
    second = await keeper.taking(destination=kept(), wait=0)
    assert len(keeper.lanes) == 1
    keeper.lanes[0].closing.set()
    await until(lambda: len(keeper.lanes) == 2)
    keeper.lanes[1].deliver(b"1")
    assert len(await second) == 1


async def test_a_connector_that_knows_no_subscriptions_is_not_asked(bench: Bench) -> None:
    with pytest.raises(NotSupportedByBroker, match="no durable subscriptions"):
        await bench.take(destination=kept())
    assert bench.connector.asked == []


async def test_a_topic_that_changed_ends_what_its_subscriptions_gave(keeper: Bench) -> None:
    first = await keeper.taking(destination=kept())
    keeper.lanes[0].deliver(b"1")
    (lease,) = await first
    keeper.takings.retire(lambda uri: uri == kept().uri)
    assert lease.over
    await until(lambda: not keeper.open_lanes)
