"""Durable subscriptions of Topics, through the whole gateway: what is published is kept until a worker has it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.config.settings import Settings
from app.connectors.stomp import declarations
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.errand import errand
from app.connectors.stomp.session import Session
from app.domain.errors import BrokerUnavailable, NotSupportedByBroker
from app.domain.link import LinkState
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.gateway.leases import Lease
from tests.contract.conftest import WAIT
from tests.faults.active_peer import ACTIVE, ActivePeer
from tests.faults.conftest import FAST
from tests.faults.durable_peer import RABBIT, DurablePeer, Queue
from tests.faults.peer import Script, ScriptedPeer
from tests.faults.test_stream_topics import until
from tests.stomp_frames import Frame

URI = MqUri.parse("svc::Topics::alerts")
QUEUE = "alerts::archiver"
ARTEMIS = {"version": "1.2", "server": "ActiveMQ-Artemis/2.31.0 ActiveMQ Artemis Messaging Engine"}


def settings(peer: ScriptedPeer, topics: dict[str, Any], **service: Any) -> Settings:
    login = {"hosts": [peer.address], "user": "guest", "password": "secret", "heartbeat_ms": [0, 0], "reconnect": FAST}
    return Settings.model_validate({"services": {"svc": {**login, "topics": topics, **service}}})


class Replica:
    """A gateway on the broker, and its workers."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def publish(self, *numbers: int, uri: MqUri = URI) -> None:
        for number in numbers:
            publication = Publication(body=b"%d" % number, message_id=f"m-{number}")
            await self.gateway.publish(self.gateway.resolve(uri), publication, timeout=WAIT)

    async def reconnected(self, peer: DurablePeer) -> None:
        """All connections end, and the shared one is another one."""
        connector = self.gateway._registry.connector("svc")
        epoch = connector.status.epoch
        for connection in peer.living:
            connection.close()
        await until(lambda: connector.status.epoch > epoch and connector.status.state is LinkState.UP)

    def taking(
        self, most: int = 1, *, wait: float = WAIT, name: str = "archiver", uri: MqUri = URI
    ) -> asyncio.Task[list[Lease]]:
        destination = replace(self.gateway.resolve(uri), subscription=name)
        return asyncio.ensure_future(self.gateway.take(destination, most=most, seconds=60, wait=wait))

    async def take(self, number: int, **options: Any) -> list[Lease]:
        leases: list[Lease] = []
        async with asyncio.timeout(WAIT):
            while len(leases) < number:
                leases += await self.taking(number - len(leases), **options)
        return leases

    def ack(self, *leases: Lease) -> set[str]:
        takings = self.gateway.takings
        return {takings.ack(lease.mq_uri, takings.token(lease), lease.subscription) for lease in leases}

    def nack(self, lease: Lease) -> str:
        takings = self.gateway.takings
        return takings.nack(lease.mq_uri, takings.token(lease), lease.subscription, requeue=True, delay=0)


@contextlib.asynccontextmanager
async def replica(peer: ScriptedPeer, **service: Any) -> AsyncIterator[Replica]:
    service = {"topics": {"alerts": {"subscriptions": ["archiver"]}}, **service}
    async with Gateway(settings(peer, **service)) as gateway:
        yield Replica(gateway)


def bodies(leases: list[Lease]) -> list[bytes]:
    return sorted(lease.delivery.message.body for lease in leases)


def paths(peer: ScriptedPeer, command: str = "SUBSCRIBE") -> list[str]:
    return [frame["destination"] for _, frame in peer.received if frame.command == command]


async def test_what_is_published_before_any_worker_is_kept() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1, 2, 3)
        assert (peer.vanished, peer.makings) == (0, 1)
        leases = await it.take(3)
        assert bodies(leases) == [b"1", b"2", b"3"]
        assert not any(lease.delivery.message.redelivered for lease in leases)
        assert {str(lease.mq_uri) for lease in leases} == {str(URI)}
        assert it.ack(*leases) == {"done"}
        await until(lambda: not peer._unacked)
        assert peer.waits(QUEUE) == []
        assert set(paths(peer)) == {"/topic/alerts", "/amq/queue/alerts::archiver"}


async def test_each_subscription_has_every_message() -> None:
    async with (
        DurablePeer.serve() as peer,
        replica(peer, topics={"alerts": {"subscriptions": ["archiver", "mailer"]}}) as it,
    ):
        await it.publish(1)
        (one,), (other,) = await it.take(1), await it.take(1, name="mailer")
        takings = it.gateway.takings
        assert takings.ack(URI, takings.token(one), "mailer") == "unknown"
        assert takings.ack(URI, takings.token(one)) == "unknown"
        assert it.ack(one, other) == {"done"}


async def test_a_queue_with_messages_is_only_found_again() -> None:
    """Nothing is delivered, and nothing is sent that could delete it."""
    async with DurablePeer.serve() as peer:
        async with replica(peer) as it:
            await it.publish(1, 2)
        async with replica(peer) as again:
            await again.publish(3)
            assert peer.makings == 1
            assert peer._tags == {}
            leases = await again.take(3)
            assert [lease.delivery.message.body for lease in leases] == [b"1", b"2", b"3"]
            assert not any(lease.delivery.message.redelivered for lease in leases)
            again.ack(*leases)


async def test_an_older_broker_that_gives_one_out_gets_it_back() -> None:
    async with DurablePeer.serve() as peer:
        peer.checks_arguments = False
        async with replica(peer) as it:
            await it.publish(1)
        async with replica(peer) as again:
            await again.publish(2)
            assert peer.makings == 1
            assert bodies(await again.take(2)) == [b"1", b"2"]


async def test_after_a_reconnect_it_is_looked_for_before_a_publish() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        peer.queues.clear()  # a broker that lost everything
        await it.reconnected(peer)
        await it.publish(2)
        assert (peer.vanished, peer.makings, peer.waits(QUEUE)) == (0, 2, [b"2"])


async def test_a_lease_that_loses_its_connection_comes_again() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        (lease,) = await it.take(1)
        await it.reconnected(peer)
        await until(lambda: lease.over)
        (again,) = await it.take(1)
        assert again.delivery.message.redelivered
        assert it.ack(lease) == {"expired"}
        assert it.ack(again) == {"done"}


async def test_what_is_given_back_comes_again() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1, 2)
        first, second = await it.take(2)
        assert it.nack(first) == "done"
        (again,) = await it.take(1)
        assert again.delivery.message.body == first.delivery.message.body
        assert it.ack(second, again) == {"done"}


async def test_replicas_share_a_subscription() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as one, replica(peer) as other:
        found: list[Lease] = []
        workers = [one.taking(5), other.taking(5)]
        await until(lambda: QUEUE in peer.queues and len(peer.queues[QUEUE].consumers) >= 2)
        await one.publish(*range(10, 15))
        await other.publish(*range(15, 20))
        for worker in workers:
            found += await worker
        found += await one.take(10 - len(found)) if len(found) < 10 else []
        assert bodies(found) == [b"%d" % number for number in range(10, 20)]
        assert peer.vanished == 0


async def test_a_queue_somebody_deleted_is_made_anew_and_costs_the_others_nothing() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        shared = peer.connections[0]
        peer.delete(QUEUE)
        task = it.taking()
        await until(lambda: peer.makings == 2 and bool(peer.queues[QUEUE].consumers))
        await it.publish(2)
        (lease,) = await asyncio.wait_for(task, WAIT)
        assert lease.delivery.message.body == b"2"
        assert not shared.ended.is_set()
        assert it.ack(lease) == {"done"}


async def test_a_queue_deleted_under_its_worker_is_made_before_the_next_publish() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        (lease,) = await it.take(1)
        peer.delete(QUEUE)
        await until(lambda: lease.over)
        await it.publish(2)
        assert (peer.vanished, peer.makings) == (0, 2)
        assert bodies(await it.take(1)) == [b"2"]


async def test_what_the_broker_refuses_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "SHORT_REST_SECONDS", 0.2)
    async with DurablePeer.serve() as peer:
        peer.refuses = "ACCESS_REFUSED - access to queue 'alerts::archiver' in vhost '/' refused for user 'guest'"
        async with replica(peer) as it:
            for attempt in (it.publish(1), it.taking()):
                with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED"):
                    await asyncio.wait_for(attempt, WAIT)
            assert peer.count("SEND") == 0
            assert not peer.connections[0].ended.is_set()
            peer.refuses = None
            await asyncio.sleep(0.2)
            await it.publish(2)
            assert bodies(await it.take(1)) == [b"2"]


async def test_a_making_that_is_refused_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica may have made it meanwhile: a failing SUBSCRIBE to the Topic would delete it."""
    monkeypatch.setattr(declarations, "SHORT_REST_SECONDS", 0.1)
    async with DurablePeer.serve() as peer:
        peer.fails = ["refuse"]
        async with replica(peer) as it:
            with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED"):
                await it.publish(1)
            looks = paths(peer).count("/amq/queue/alerts::archiver")
            await asyncio.sleep(0.1)
            await it.publish(2)
            assert paths(peer).count("/amq/queue/alerts::archiver") == looks + 1
            assert (peer.makings, peer.waits(QUEUE)) == (2, [b"2"])


async def test_a_making_whose_answer_is_lost_is_done_again() -> None:
    """The queue is there, and it is not known whether it was bound."""
    async with DurablePeer.serve() as peer:
        peer.fails = ["vanish"]
        async with replica(peer) as it:
            while True:
                with contextlib.suppress(BrokerUnavailable):
                    await it.publish(1)
                    break
            assert (peer.makings, peer.vanished, peer.waits(QUEUE)) == (2, 0, [b"1"])


@pytest.mark.parametrize("failure", ["", "refuse"])
async def test_a_making_that_was_never_sent_is_asked_anew(failure: str) -> None:
    """Another replica may make it meanwhile: it is not consumed from, nor, by a failure, deleted."""
    async with DurablePeer.serve() as peer:
        peer.fails = ["full"]
        async with replica(peer) as it:
            with pytest.raises(BrokerUnavailable, match="connection limit"):
                await it.publish(1)
            peer.script.refusal = None
            peer.queues[QUEUE] = Queue({"alerts"})
            peer.publish("alerts", b"a")
            peer.fails = [failure]
            await it.publish(2)
            assert (peer.makings, peer.waits(QUEUE)) == (0, [b"a", b"2"])


async def test_a_subscription_that_a_reload_adds_stands_before_the_next_publish() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        more = {"alerts": {"subscriptions": ["archiver", "mailer"]}}
        await it.gateway.reload(settings(peer, more))
        await it.publish(2)
        assert peer.waits("alerts::mailer") == [b"2"]
        assert peer.waits(QUEUE) == [b"1", b"2"]


@pytest.mark.parametrize("connections", ["single", "split"])
async def test_a_virtual_topic_of_activemq(connections: str) -> None:
    uri = MqUri.parse("svc::Topics::VirtualTopic.alerts")
    async with (
        ScriptedPeer.listen(Script(connected=ACTIVE)) as peer,
        replica(peer, topics={uri.name: {"subscriptions": ["archiver"]}}, connections=connections) as it,
    ):
        await it.publish(1, uri=uri)
        made = await peer.frame("SUBSCRIBE")
        assert made["destination"] == "/queue/Consumer.archiver.VirtualTopic.alerts"
        assert made["activemq.prefetchSize"] == "0"
        commands = [frame.command for _, frame in peer.received if frame.command in {"SUBSCRIBE", "SEND"}]
        assert commands == ["SUBSCRIBE", "SEND"]
        tasks = [it.taking(1, uri=uri), it.taking(1, uri=uri)]
        for _ in tasks:  # workers share it
            connection, lane = await peer.frame_from("SUBSCRIBE")
            assert (lane["destination"], lane["activemq.prefetchSize"]) == (made["destination"], "1")
            await connection.message(lane["id"], b"1", ack=lane["id"])
        assert it.ack(*[lease for task in tasks for lease in await task]) == {"done"}


@pytest.mark.parametrize("connections", ["single", "split"])
async def test_a_client_id_of_activemq_has_one_consumer(connections: str) -> None:
    async with (
        ScriptedPeer.listen(Script(connected=ACTIVE)) as peer,
        replica(peer, client_id="gateway", connections=connections) as it,
    ):
        await it.publish(1)
        connection, made = await peer.frame_from("SUBSCRIBE")
        assert connection.received[0].headers.get("client-id") == "gateway"
        assert (made["destination"], made["activemq.subscriptionName"]) == ("/topic/alerts", "alerts.archiver")
        tasks = [it.taking(), it.taking()]
        connection, lane = await peer.frame_from("SUBSCRIBE")
        assert lane["activemq.subscriptionName"] == "alerts.archiver"
        await peer.none("SUBSCRIBE", 0.1)
        await connection.message(lane["id"], b"1", ack="a1")
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (lease,) = done.pop().result()
        await peer.none("SUBSCRIBE", 0.1)
        assert it.nack(lease) == "done"
        assert (await peer.frame("UNSUBSCRIBE", where=lambda frame: frame["id"] == lane["id"])) is not None
        connection, other = await peer.frame_from("SUBSCRIBE")
        order = [frame.headers.get("id") for frame in connection.received if frame.command.endswith("SUBSCRIBE")]
        assert order[-2:] == [lane["id"], other["id"]]  # the one has ended before the other begins
        await connection.message(other["id"], b"1", ack="a2", redelivered="true")
        found = [lease for task in tasks for lease in await task if not lease.over]
        assert it.ack(*found) == {"done"}


@pytest.mark.parametrize("consuming_too", [False, True])
async def test_a_worker_keeps_its_place_while_the_connection_that_publishes_is_made_anew(consuming_too: bool) -> None:
    async with ActivePeer.serve() as peer, replica(peer, client_id="gateway", connections="split") as it:
        await it.publish(1)
        task = it.taking()
        await until(lambda: peer.consumer is not None)
        if consuming_too:
            consuming = peer.consumer
            assert consuming is not None
            consuming.close()
            await until(lambda: peer.consumer not in {None, consuming})
        connections = len(peer.connections)
        peer.publishing.close()
        await until(lambda: len(peer.connections) > connections)
        await it.publish(2)
        assert (peer.refused, task.done()) == (0, False)
        task.cancel()


async def test_a_subscription_whose_last_consumer_is_just_leaving_rests_for_a_moment() -> None:
    async with ActivePeer.serve() as peer, replica(peer, client_id="gateway", topics={"alerts": {}}) as it:
        await it.publish(1)
        peer._consumers["alerts.archiver"] = peer.connections[0], "left"
        await it.gateway.reload(settings(peer, {"alerts": {"subscriptions": ["archiver"]}}, client_id="gateway"))
        with pytest.raises(BrokerUnavailable, match="in use") as caught:
            await it.publish(2)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after <= 1
        del peer._consumers["alerts.archiver"]
        async with asyncio.timeout(WAIT):
            while peer.count("SEND") < 2:
                with contextlib.suppress(BrokerUnavailable):
                    await it.publish(2)
                await asyncio.sleep(0.05)


async def test_a_subscription_whose_consumer_the_broker_ended_is_made_before_the_next_publish() -> None:
    async with ActivePeer.serve() as peer, replica(peer, client_id="gateway") as it:
        await it.publish(1)
        task = it.taking()
        await until(lambda: peer.consumer is not None)
        connection, lane = peer.received[-1]
        await connection.message(lane["id"], b"1", ack="a1")
        (lease,) = await task
        made = peer.count("SUBSCRIBE")
        await peer.end("alerts.archiver")
        await until(lambda: lease.over)
        await it.publish(2)
        commands = [frame.command for _, frame in peer.received if frame.command in {"SUBSCRIBE", "SEND"}]
        assert commands[made + 1 :] == ["SUBSCRIBE", "SEND"]
        assert peer.refused == 0


async def test_artemis_goes_by_the_client_id() -> None:
    async with ScriptedPeer.listen(Script(connected=ARTEMIS)) as peer, replica(peer, client_id="gateway") as it:
        await it.publish(1)
        made = await peer.frame("SUBSCRIBE")
        assert made["durable-subscription-name"] == "alerts.archiver"
        assert (made["subscription-type"], made["consumer-window-size"]) == ("MULTICAST", "0")
        task = it.taking()
        connection, lane = await peer.frame_from("SUBSCRIBE")
        assert (lane["destination"], lane["durable-subscription-name"]) == ("/topic/alerts", "alerts.archiver")
        await connection.message(lane["id"], b"1", ack="a1")
        assert it.ack(*await task) == {"done"}


@pytest.mark.parametrize(
    "server", [ACTIVE, ARTEMIS, {"version": "1.2", "server": "scripted/1.0"}], ids=["activemq", "artemis", "unknown"]
)
async def test_a_broker_that_cannot_keep_one_says_so(server: dict[str, str]) -> None:
    async with ScriptedPeer.listen(Script(connected=server)) as peer, replica(peer) as it:
        for attempt in (it.taking(), it.publish(1)):
            with pytest.raises(NotSupportedByBroker, match="subscriptions"):
                await asyncio.wait_for(attempt, WAIT)
        assert peer.count("SEND") == 0


async def test_a_name_that_cannot_be_found_in_the_brokers_words() -> None:
    """RabbitMQ quotes it without escapes: the ERROR names nobody, and the RECEIPT comes all the same."""
    uri = MqUri.parse("svc::Topics::it's")
    async with DurablePeer.serve() as peer:
        for number in (1, 2):
            async with replica(peer, topics={uri.name: {"subscriptions": ["archiver"]}}) as it:
                await it.publish(number, uri=uri)
        assert (peer.makings, peer.waits("it's::archiver")) == (1, [b"1", b"2"])


async def test_a_deleted_queue_that_cannot_be_found_in_the_brokers_words_is_made_anew() -> None:
    uri = MqUri.parse("svc::Topics::it's")
    async with DurablePeer.serve() as peer, replica(peer, topics={uri.name: {"subscriptions": ["archiver"]}}) as it:
        await it.publish(1, uri=uri)
        peer.delete("it's::archiver")
        with contextlib.suppress(BrokerUnavailable):
            await it.taking(uri=uri, wait=0.2)
        await it.publish(2, uri=uri)
        assert (peer.vanished, peer.makings) == (0, 2)
        assert bodies(await it.take(1, uri=uri)) == [b"2"]


async def test_a_stream_and_a_subscription_behind_one_topic() -> None:
    topics = {"alerts": {"replay": "stream", "subscriptions": ["archiver"]}}
    async with DurablePeer.serve() as peer, replica(peer, topics=topics) as it:
        await it.publish(1)
        assert peer.waits(QUEUE) == peer.waits("alerts-stream") == [b"1"]


async def test_without_a_connection_to_declare_with_nothing_is_published() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        peer.script.refusal = Frame("ERROR", {"message": "Bad CONNECT"}, b"vhost connection limit reached")
        await it.gateway.reload(settings(peer, {"alerts": {"subscriptions": ["archiver", "mailer"]}}))
        with pytest.raises(BrokerUnavailable, match="connection limit"):
            await it.publish(2)
        assert peer.count("SEND") == 1
        peer.script.refusal = None
        await it.publish(3)
        assert peer.waits("alerts::mailer") == [b"3"]
        assert not peer.connections[0].ended.is_set()


async def test_a_broker_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "DEADLINE", 0.1)
    async with DurablePeer.serve() as peer:
        peer.queues[QUEUE] = Queue({"alerts"})
        peer.checks_arguments = peer.script.receipts = False
        async with replica(peer) as it:
            with pytest.raises(BrokerUnavailable, match="does not confirm"):
                await it.publish(1)
            assert peer.count("SEND") == 0
            assert not peer.connections[0].ended.is_set()
            peer.script.receipts = True
            await it.publish(2)
            assert peer.waits(QUEUE) == [b"2"]


async def test_an_end_without_a_word_says_nothing_of_the_queue() -> None:
    async with DurablePeer.serve() as peer:
        peer.fails = ["hang up"]
        async with replica(peer) as it:
            with pytest.raises(BrokerUnavailable, match="link was lost"):
                await it.publish(1)
            await it.publish(2)
            assert (peer.makings, peer.waits(QUEUE)) == (1, [b"2"])


async def test_a_new_connection_does_not_wait_for_the_errand_of_the_last_one() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        connections, peer.script.connected = len(peer.connections), None  # the next one waits
        await it.gateway.reload(settings(peer, {"alerts": {"subscriptions": ["archiver", "mailer"]}}))
        await until(lambda: len(peer.connections) > connections and bool(peer.connections[-1].received))
        hanging = peer.connections[-1]
        waiting = asyncio.ensure_future(it.publish(2))
        await asyncio.sleep(0)
        peer.script.connected = RABBIT
        peer.connections[0].close()
        await hanging.wait_ended(1)
        with pytest.raises(BrokerUnavailable, match="link was lost"):
            await waiting
        await asyncio.wait_for(it.publish(3), 1)
        assert (peer.waits(QUEUE), peer.waits("alerts::mailer")) == ([b"1", b"3"], [b"3"])


async def test_nothing_is_made_for_a_service_that_was_taken_out() -> None:
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        connections, peer.script.connected = len(peer.connections), None  # the next one waits
        await it.gateway.reload(settings(peer, {"alerts": {"subscriptions": ["archiver", "mailer"]}}))
        await until(lambda: len(peer.connections) > connections and bool(peer.connections[-1].received))
        await it.gateway.reload(Settings.model_validate({"services": {}}))
        await peer.connections[-1].wait_ended()
        assert len(peer.connections) == connections + 1
        assert set(peer.queues) == {QUEUE}


async def test_who_is_not_connected_has_no_errands() -> None:
    with pytest.raises(BrokerUnavailable, match="not connected"):
        async with errand(Session(1, Address("localhost", "127.0.0.1", 1), lambda _event: None)):
            raise AssertionError("an errand without a broker")


async def test_what_is_bound_to_another_destination_is_another_queue() -> None:
    """The one that is there would count as bound, and what is published to the new destination be lost."""
    async with DurablePeer.serve() as peer, replica(peer) as it:
        await it.publish(1)
        moved = {"alerts": {"subscriptions": ["archiver"], "destination": "/topic/other"}}
        await it.gateway.reload(settings(peer, moved))
        await it.publish(2)
        (name,) = set(peer.queues) - {QUEUE}
        assert re.fullmatch(QUEUE + "::[0-9a-f]{8}", name)
        assert (peer.waits(QUEUE), peer.waits(name), peer.vanished) == ([b"1"], [b"2"], 0)
        assert bodies(await it.take(1)) == [b"2"]
