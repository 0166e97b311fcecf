"""One stream of several destinations while their brokers refuse, end and vanish."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.config.settings import Settings
from app.domain.errors import BrokerRejected, BrokerUnavailable, DestinationQuarantined, GatewayError
from app.domain.uri import MqUri
from app.gateway import stream_reader, stream_topic
from app.gateway.gateway import Gateway
from app.gateway.joint_opening import Wanted, open_joint
from app.gateway.stream import Reader, StreamRequest
from tests.contract.conftest import WAIT
from tests.faults.conftest import FAST
from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.faults.stream_peer import RABBIT, StreamPeer
from tests.stomp_frames import Frame
from tests.unit.wire.event_source import EventSource

ONE, TWO, THREE = "svc::Topics::one", "svc::Topics::two", "svc::Topics::three"
JOBS, LOGGED = "svc::Queues::jobs", "logs::Topics::alerts"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_topic, "EMPTY_AFTER", 0.1)
    monkeypatch.setattr(stream_reader, "AHEAD_SECONDS", 0.1)


@contextlib.asynccontextmanager
async def gateway_on(peer: ScriptedPeer, logs: StreamPeer | None = None) -> AsyncIterator[Gateway]:
    """Service `svc` on the one, `logs` with a stream behind its Topic on the other."""

    def service(address: str, **more: Any) -> dict[str, Any]:
        login = {"user": "guest", "password": "secret", "heartbeat_ms": [0, 0], "reconnect": FAST}
        return {"hosts": [address], **login, **more}

    plain: dict[str, Any] = {"one": {}, "two": {}, "three": {}}
    services = {"svc": service(peer.address, topics=plain, queues={"jobs": {"prefetch": 2}})}
    if logs is not None:
        services["logs"] = service(logs.address, topics={"alerts": {"replay": "stream", "ring_messages": 3}})
    async with Gateway(Settings.model_validate({"services": services})) as gateway:
        yield gateway


class Client:
    """What a client of a stream sees."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._source = EventSource()
        self._source.feed(reader.opening)

    @classmethod
    async def open(cls, gateway: Gateway, *uris: str, **request: Any) -> Client:
        asked = StreamRequest(format="envelope", **request)
        destinations = [gateway.resolve(MqUri.parse(uri)) for uri in uris]
        wanted = [Wanted(each, asked, number) for number, each in enumerate(destinations)]
        return cls(await open_joint(gateway.open_stream, wanted, timeout=WAIT))

    @property
    def last_event_id(self) -> str:
        return self._source.last_event_id

    async def next(self, count: int = 1) -> list[tuple[str, str]]:
        """Where the next events are from, and body or reason; as many writes as they need."""
        async with asyncio.timeout(WAIT):
            while len(self._source.events) < count:
                await self.reader.ready()
                batch = self.reader.take(1)
                self.reader.handed_over(batch)
                self._source.feed(batch.data)
                assert batch.end is None, batch.end
        found, self._source.events = self._source.events[:count], self._source.events[count:]
        values = [json.loads(event.data) for event in found]
        return [(value["mq_uri"], value.get("reason") or value["body"]) for value in values]

    async def end(self) -> str:
        async with asyncio.timeout(WAIT):
            while True:
                await self.reader.ready()
                batch = self.reader.take()
                self._source.feed(batch.data)
                if batch.end is not None:
                    return batch.end


async def subscribed(peer: ScriptedPeer, *destinations: str) -> tuple[Connection, dict[str, str]]:
    """The connection, and the ids under which these are subscribed there."""
    found: dict[str, str] = {}
    for _ in destinations:
        connection, frame = await peer.frame_from("SUBSCRIBE")
        found[frame["destination"]] = frame["id"]
    assert set(found) == set(destinations)
    return connection, found


async def test_sse_case_52_a_link_that_is_lost_is_a_gap_in_its_own_topics() -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        StreamPeer.serve() as logs,
        gateway_on(peer, logs) as gateway,
    ):
        client = await Client.open(gateway, ONE, LOGGED, TWO)
        connection, ids = await subscribed(peer, "/topic/one", "/topic/two")
        await connection.message(ids["/topic/one"], b"1")
        assert await client.next() == [(ONE, "1")]
        before = client.last_event_id
        connection.close()
        logs.publish(b"while svc is away")
        assert await client.next() == [(LOGGED, "while svc is away")]
        connection, ids = await subscribed(peer, "/topic/one", "/topic/two")
        assert sorted(await client.next(2)) == [(ONE, "link_lost"), (TWO, "link_lost")]
        await connection.message(ids["/topic/two"], b"2")
        assert await client.next() == [(TWO, "2")]
        # Whoever resumes across it is told in the same way.
        again = await Client.open(gateway, ONE, LOGGED, TWO, last_event_id=before)
        seen = await again.next(4)
        assert sorted(seen) == sorted(
            [(ONE, "link_lost"), (TWO, "link_lost"), (TWO, "2"), (LOGGED, "while svc is away")]
        )


async def test_a_lost_link_of_the_stream_is_nothing() -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        StreamPeer.serve() as logs,
        gateway_on(peer, logs) as gateway,
    ):
        client = await Client.open(gateway, LOGGED, ONE)
        connection, ids = await subscribed(peer, "/topic/one")
        logs.publish(b"0")
        assert await client.next() == [(LOGGED, "0")]
        logs.close_all()
        logs.publish(b"1")
        await connection.message(ids["/topic/one"], b"meanwhile")
        assert sorted(await client.next(2)) == [(LOGGED, "1"), (ONE, "meanwhile")]


async def test_sse_case_35_on_another_replica_the_stream_goes_on_and_the_ring_is_a_gap() -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        StreamPeer.serve() as logs,
        gateway_on(peer, logs) as gateway,
    ):
        client = await Client.open(gateway, ONE, LOGGED)
        connection, ids = await subscribed(peer, "/topic/one")
        await connection.message(ids["/topic/one"], b"x")
        logs.publish(b"0")
        assert sorted(await client.next(2)) == [(LOGGED, "0"), (ONE, "x")]
        logs.publish(*(b"%d" % number for number in range(1, 9)))
        async with gateway_on(peer, logs) as replica:
            again = await Client.open(replica, ONE, LOGGED, last_event_id=client.last_event_id)
            connection, ids = await subscribed(peer, "/topic/one")
            # Far behind the live ring: read from the broker, while the other Topic is live.
            await connection.message(ids["/topic/one"], b"y")
            seen = await again.next(10)
            assert [body for uri, body in seen if uri == LOGGED] == [str(number) for number in range(1, 9)]
            assert [body for uri, body in seen if uri == ONE] == ["restart", "y"]


def _to(destination: str) -> Callable[[Frame], bool]:
    return lambda frame: frame["destination"] == destination


async def test_one_that_the_broker_refuses_is_named_and_no_queue_is_asked() -> None:
    """RabbitMQ 3.10.8: ERROR, RECEIPT, the end."""
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, gateway_on(peer) as gateway:
        first = await Client.open(gateway, ONE)
        peer.script.receipts = False
        opening = asyncio.ensure_future(Client.open(gateway, JOBS, ONE, TWO))
        connection, asked = await peer.frame_from("SUBSCRIBE", where=_to("/topic/two"))
        await connection.send("ERROR", {"message": "access_refused"}, b"ACCESS_REFUSED - access to topic 'two' refused")
        await connection.send("RECEIPT", {"receipt-id": asked["receipt"]})
        peer.script.receipts = True
        connection.close()
        with pytest.raises(BrokerRejected, match=r"svc::Topics::two.*access to topic 'two' refused") as caught:
            await opening
        assert [error.where for error in caught.value.errors] == ["uri[2]"]
        assert await first.next() == [(ONE, "link_lost")]
        assert len(gateway._streams._topics[MqUri.parse(ONE)].readers) == 1
        asked_for = [frame["destination"] for _, frame in peer.received if frame.command == "SUBSCRIBE"]
        assert asked_for == ["/topic/one", "/topic/two", "/topic/one"]


async def test_one_that_keeps_ending_the_connection_rests_alone() -> None:
    """The broker never says which one it was; nobody else is in flight then, so nobody else is suspected."""
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, gateway_on(peer) as gateway:
        watching = await Client.open(gateway, ONE)
        for _ in range(3):
            peer.script.receipts = False
            opening = asyncio.ensure_future(Client.open(gateway, ONE, TWO, THREE))
            connection, _asked = await peer.frame_from("SUBSCRIBE", where=_to("/topic/two"))
            peer.script.receipts = True
            connection.close()
            with pytest.raises(BrokerUnavailable):
                await opening
            assert await watching.next() == [(ONE, "link_lost")]
        with pytest.raises(DestinationQuarantined):
            await Client.open(gateway, ONE, TWO, THREE)
        await Client.open(gateway, ONE, THREE)


async def test_when_the_broker_ends_one_subscription_the_stream_ends_and_can_be_resumed() -> None:
    async with ScriptedPeer.listen() as peer, gateway_on(peer) as gateway:
        client = await Client.open(gateway, ONE, TWO, JOBS)
        connection, ids = await subscribed(peer, "/topic/one", "/topic/two", "/queue/jobs")
        await connection.message(ids["/topic/one"], b"1")
        assert await client.next() == [(ONE, "1")]
        await connection.send("ERROR", {"subscription": ids["/topic/two"], "message": "server cancelled"})
        assert await client.end() == "cancelled"
        await client.reader.close()
        await connection.message(ids["/topic/one"], b"2")
        again = await Client.open(gateway, ONE, TWO, last_event_id=client.last_event_id)
        assert sorted(await again.next(2)) == [(ONE, "2"), (TWO, "restart")]


async def test_what_a_queue_gave_to_a_client_that_took_nothing_goes_back() -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, gateway_on(peer) as gateway:
        client = await Client.open(gateway, ONE, JOBS)
        connection, ids = await subscribed(peer, "/topic/one", "/queue/jobs")
        for number in range(2):
            await connection.message(ids["/queue/jobs"], b"%d" % number, ack=f"T_{ids['/queue/jobs']}@@s@@{number}")
        async with asyncio.timeout(WAIT):
            while gateway._buffered() < 2:  # noqa: ASYNC110 - both are here
                await asyncio.sleep(0.01)
        batch = client.reader.take(1)
        client.reader.handed_over(batch)
        assert (await peer.frame("ACK"))["id"].endswith("@@0")
        client.reader.take(1)  # on its way when the client goes
        await client.reader.close()
        assert (await peer.frame("NACK"))["id"].endswith("@@1")


async def test_a_broker_that_is_down_is_the_problem_of_the_whole_stream() -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        StreamPeer.serve() as logs,
        gateway_on(peer, logs) as gateway,
    ):
        await peer.connection()
        await logs.connection()
        await logs.shut()
        async with asyncio.timeout(WAIT):
            while gateway.link_states()["logs"] != "down":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(GatewayError) as caught:
            await Client.open(gateway, ONE, LOGGED, JOBS)
        assert isinstance(caught.value, BrokerUnavailable)
        assert [error.where for error in caught.value.errors] == ["uri[1]"]
        assert gateway.destination_view(gateway.resolve(MqUri.parse(ONE))).readers == 0
        assert peer.count("SUBSCRIBE") == 1, "the Queue was not asked"
