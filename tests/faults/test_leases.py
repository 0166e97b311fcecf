"""Leases across lost connections and brokers with habits of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.connectors.base import Destination
from app.domain.errors import BrokerRejected, BrokerUnavailable
from app.gateway.lease_stream import LeaseReader
from app.gateway.leases import Lease
from app.gateway.stream import Counts, StreamLease
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject, queue
from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame
from tests.unit.wire.event_source import EventSource

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8"}
ACTIVE = {"version": "1.2", "server": "ActiveMQ/5.17.2"}


@dataclass
class Bench:
    """A gateway's takings over a connector whose broker is scripted."""

    peer: ScriptedPeer
    subject: Subject
    takings: Takings
    jobs: Destination

    def taking(self, most: int = 1, *, seconds: float = 60, wait: float = WAIT) -> asyncio.Task[list[Lease]]:
        return asyncio.ensure_future(
            self.takings.take(self.jobs, self.subject.connector, most=most, seconds=seconds, wait=wait)
        )

    async def lane(self) -> tuple[Connection, Frame]:
        return await self.peer.frame_from("SUBSCRIBE", where=lambda frame: frame["destination"] == "/queue/jobs")

    async def taken(self, number: int = 1, **options: Any) -> list[tuple[Lease, Frame]]:
        """Messages, one on each lane."""
        task = self.taking(number, **options)
        lanes = []
        for at in range(number):
            connection, frame = await self.lane()
            await connection.message(frame["id"], b"%d" % at, ack=f"T_{frame['id']}@@s@@{at + 1}")
            lanes.append(frame)
        return list(zip(await task, lanes, strict=True))

    def ack(self, lease: Lease) -> str:
        return self.takings.ack(lease.mq_uri, self.takings.token(lease))

    def nack(self, lease: Lease, *, requeue: bool = True) -> str:
        return self.takings.nack(lease.mq_uri, self.takings.token(lease), requeue=requeue, delay=0)


@contextlib.asynccontextmanager
async def opened(
    subject: Connect, server: dict[str, str], *, linger: float = 60, **settings: Any
) -> AsyncIterator[Bench]:
    async with (
        ScriptedPeer.listen(Script(connected=server)) as peer,
        subject(peer.address, **settings) as it,
    ):
        takings = Takings("here", Metrics(), lambda _uri: Counts(), lambda _size: None, linger=linger)
        yield Bench(peer, it, takings, queue())
        await takings.close(0.2)


@pytest.mark.parametrize("server", [RABBIT, ACTIVE], ids=["rabbitmq", "activemq"])
async def test_behaviour_10_an_ack_of_a_lease_never_crosses_a_reconnect(
    subject: Connect, server: dict[str, str]
) -> None:
    async with opened(subject, server) as bench:
        ((lease, old),) = await bench.taken()
        (await bench.peer.connection()).close()
        await bench.subject.until(lambda: bench.subject.connector.status.epoch == 2)
        assert bench.ack(lease) == "expired"
        task = bench.taking()
        connection, new = await bench.lane()
        assert new["id"] != old["id"]
        await connection.message(new["id"], b"0", ack="again", redelivered="true")
        (again,) = await task
        assert again.delivery.message.redelivered
        assert bench.ack(again) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == "again"
        await bench.peer.none("ACK", 0.1)


async def test_a_lease_is_asked_for_one_at_a_time_and_acked_alone(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        (first, lane), (second, other) = await bench.taken(2)
        assert (lane["ack"], lane["prefetch-count"]) == ("client-individual", "1")
        assert lane["id"] != other["id"]
        assert bench.ack(second) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == second.delivery.token
        assert bench.ack(first) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == first.delivery.token
        await bench.peer.none("UNSUBSCRIBE", 0.1)


async def test_on_activemq_giving_one_back_ends_its_subscription_and_no_other(subject: Connect) -> None:
    async with opened(subject, ACTIVE) as bench:
        (first, lane), (second, _other) = await bench.taken(2)
        assert lane["activemq.prefetchSize"] == "1"
        assert bench.nack(first) == "done"
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == lane["id"]
        assert bench.ack(second) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == second.delivery.token
        await bench.peer.none("UNSUBSCRIBE", 0.1)
        assert bench.peer.count("NACK") == 0


async def test_on_rabbitmq_giving_one_back_is_a_nack_after_the_end_of_its_subscription(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        (first, lane), (second, _other) = await bench.taken(2)
        assert bench.nack(first) == "done"
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == lane["id"]
        returned = await bench.peer.frame("NACK")
        assert returned["requeue"] == "true"
        assert returned["id"].partition("@@")[2] == first.delivery.token.partition("@@")[2]
        assert bench.ack(second) == "done"


async def test_a_lease_that_runs_out_is_given_back(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        ((lease, lane),) = await bench.taken(seconds=0.05)
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == lane["id"]
        await bench.peer.frame("NACK")
        assert bench.ack(lease) == "expired"
        assert bench.peer.count("ACK") == 0


@pytest.mark.parametrize("server", [RABBIT, ACTIVE], ids=["rabbitmq", "activemq"])
async def test_a_message_refused_for_good(subject: Connect, server: dict[str, str]) -> None:
    async with opened(subject, server) as bench:
        ((lease, _lane),) = await bench.taken()
        assert bench.nack(lease, requeue=False) == "done"
        refused = await bench.peer.frame("NACK")
        assert (refused["id"], refused["requeue"]) == (lease.delivery.token, "false")
        await bench.peer.none("UNSUBSCRIBE", 0.1)


async def test_behaviour_38_a_lease_never_outlasts_the_brokers_patience(subject: Connect) -> None:
    async with opened(subject, RABBIT, consumer_timeout=0.1) as bench:
        ((lease, _lane),) = await bench.taken()
        assert (await bench.peer.frame("NACK"))["id"] == lease.delivery.token
        assert lease.over
        assert bench.ack(lease) == "expired"
        assert bench.peer.count("ACK") == 0


async def test_a_message_nobody_comes_for_goes_back(subject: Connect) -> None:
    async with opened(subject, RABBIT, linger=0.1) as bench:
        ((lease, lane),) = await bench.taken()
        assert bench.ack(lease) == "done"
        connection = await bench.peer.connection()
        await connection.message(lane["id"], b"next", ack=f"T_{lane['id']}@@s@@2")
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == lane["id"]
        assert (await bench.peer.frame("NACK"))["id"].endswith("@@s@@2")


async def test_a_message_that_overtakes_the_receipt_can_be_acked(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        bench.peer.script.receipts = False
        task = bench.taking()
        connection, frame = await bench.lane()
        await connection.message(frame["id"], b"early", ack="T_x@@s@@1")
        await connection.release()
        (lease,) = await task
        assert bench.ack(lease) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == "T_x@@s@@1"


async def test_a_refused_subscription_is_told(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        bench.peer.script.receipts = False
        task = bench.taking(10)
        connection, frame = await bench.lane()
        await connection.send("ERROR", {"receipt-id": frame["receipt"], "message": "not authorized"})
        with pytest.raises(BrokerRejected, match="not authorized"):
            await asyncio.wait_for(task, WAIT)
        assert bench.peer.count("SUBSCRIBE") == 1


async def test_a_broker_that_is_down_is_told(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        task = bench.taking()
        await bench.lane()
        await bench.peer.shut()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(task, 2 * WAIT)


async def test_who_waits_at_a_reconnect_gets_what_comes_after_it(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        task = bench.taking()
        (await bench.lane())[0].close()
        connection, frame = await bench.lane()
        await connection.message(frame["id"], b"after", ack="T_x@@s@@1")
        (lease,) = await asyncio.wait_for(task, WAIT)
        assert lease.delivery.message.body == b"after"
        assert bench.ack(lease) == "done"


# Event streams whose events are leases.


async def _stream(bench: Bench, prefetch: int = 2) -> LeaseReader:
    """A reader with `prefetch` lanes, whose first messages are on their way."""
    lease = StreamLease("/mq/svc/Queues/jobs/ack", 60)
    reader = LeaseReader("data", lease, bench.takings, lambda _reader: None, lambda _size: None)
    await reader.open(queue(prefetch=prefetch), bench.subject.connector, Counts, WAIT)
    return reader


async def _event(reader: LeaseReader) -> str:
    """The lease of the next event."""
    async with asyncio.timeout(WAIT):
        await reader.ready()
    batch = reader.take()
    reader.handed_over(batch)
    (event,) = EventSource.read(batch.data).events
    return event.last_event_id


@pytest.mark.parametrize("server", [RABBIT, ACTIVE], ids=["rabbitmq", "activemq"])
async def test_a_streams_lanes_come_back_after_a_reconnect_and_its_leases_do_not(
    subject: Connect, server: dict[str, str]
) -> None:
    async with opened(subject, server) as bench:
        reader = await _stream(bench)
        connection, lane = await bench.lane()
        await bench.lane()
        await connection.message(lane["id"], b"1", ack="T_1@@s@@1")
        lease = await _event(reader)
        connection.close()
        connection, lane = await bench.lane()
        await bench.lane()
        assert bench.takings.ack(bench.jobs.uri, lease) == "expired"
        await connection.message(lane["id"], b"1", ack="T_2@@s@@1", redelivered="true")
        again = await _event(reader)
        assert bench.takings.ack(bench.jobs.uri, again) == "done"
        assert (await bench.peer.frame("ACK"))["id"] == "T_2@@s@@1"
        await reader.close()


async def test_on_activemq_a_stream_that_gives_one_back_subscribes_that_lane_anew(subject: Connect) -> None:
    async with opened(subject, ACTIVE) as bench:
        reader = await _stream(bench)
        connection, first = await bench.lane()
        _, second = await bench.lane()
        await connection.message(first["id"], b"1", ack="a1")
        returned = await _event(reader)
        await connection.message(second["id"], b"2", ack="a2")
        kept = await _event(reader)
        assert bench.takings.nack(bench.jobs.uri, returned, requeue=True, delay=0) == "done"
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == first["id"]
        _, third = await bench.lane()
        await connection.message(third["id"], b"1", ack="a3", redelivered="true")
        again = await _event(reader)
        for lease in (kept, again):
            assert bench.takings.ack(bench.jobs.uri, lease) == "done"
        assert [frame["id"] for frame in await bench.peer.frames("ACK", 2)] == ["a2", "a3"]
        assert bench.peer.count("NACK") == 0
        await reader.close()


async def test_on_rabbitmq_a_stream_gives_one_back_with_a_nack(subject: Connect) -> None:
    async with opened(subject, RABBIT) as bench:
        reader = await _stream(bench, prefetch=1)
        connection, lane = await bench.lane()
        await connection.message(lane["id"], b"1", ack="T_1@@s@@1")
        returned = await _event(reader)
        assert bench.takings.nack(bench.jobs.uri, returned, requeue=True, delay=0) == "done"
        frame = await bench.peer.frame("NACK")
        assert (frame["id"], frame["requeue"]) == ("T_1@@s@@1", "true")
        await bench.peer.none("UNSUBSCRIBE", 0.1)
        await reader.close()
        assert (await bench.peer.frame("UNSUBSCRIBE"))["id"] == lane["id"]
