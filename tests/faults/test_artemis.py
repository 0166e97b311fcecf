"""What is different with Artemis, over a scripted peer that does what is known of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import BrokerRejected, ConnectionLost
from app.domain.link import LinkFault, LinkState
from app.domain.message import Publication, Published
from app.gateway.idempotency import Once
from tests.contract.conftest import WAIT
from tests.faults.artemis_peer import ArtemisPeer
from tests.faults.conftest import Connect, Subject, publication, queue, topic


class Losing(Once):
    """Keys over a connector: `Gateway.publish` without the gateway."""

    def __init__(self, it: Subject) -> None:
        async def publish(
            destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
        ) -> Published:
            await it.connector.publish(destination, publication, timeout=timeout, confirm=confirm)
            return Published(
                message_id=publication.message_id, mq_uri=destination.uri, confirmed=confirm, persistent=False
            )

        super().__init__(publish, LimitSettings(), lambda _size: None)


async def test_what_was_sent_again_under_a_key_is_there_once(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        once = Losing(it)
        peer.script.receipts = False
        first = asyncio.ensure_future(once.publish("me", queue(), publication(b"1"), timeout=WAIT, confirm=True))
        connection, _ = await peer.frame_from("SEND")
        connection.close()
        with pytest.raises(ConnectionLost):
            await first
        peer.script.receipts = True
        await it.state(LinkState.UP)
        published = await once.publish("me", queue(), publication(b"1"), timeout=WAIT, confirm=True)
        assert published.confirmed
        assert peer.waiting("jobs") == [b"1"]
        await once.publish("somebody else", queue(), publication(b"1"), timeout=WAIT, confirm=True)
        await it.put(b"1")
        await it.put(b"1")
        assert peer.waiting("jobs") == [b"1"] * 4, "the same id is another message there"
        recorder, _ = await it.consume(queue())
        message = (await recorder.next()).message
        assert not [name for name in message.headers if "AMQ" in name]


async def test_one_of_the_prefixes_and_none(subject: Connect) -> None:
    for prefixes, address in ((True, "jobs"), (False, "/queue/jobs")):
        async with ArtemisPeer.serve(prefixes=prefixes) as peer, subject(peer.address) as it:
            await it.put(b"1")
            assert peer.waiting(address) == [b"1"]
            sent = await peer.frame("SEND")
            assert (sent["destination"], sent["destination-type"]) == ("/queue/jobs", "ANYCAST")


async def test_a_lane_has_one_message_of_any_size(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        for number in range(3):
            await it.put(b"%d" % number)
        recorder, subscription = await it.consume(queue(), prefetch=1)
        first = await recorder.next()
        await recorder.nothing(0.1)
        assert subscription.ack(first)
        assert (await recorder.next()).message.body == b"1"
        assert peer.waiting("jobs") == [b"2"]


async def test_giving_back_ends_the_subscription_and_tells_the_others(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        await it.put(b"1")
        await it.put(b"2")
        recorder, subscription = await it.consume(queue())
        first, second = await recorder.next(), await recorder.next()
        assert subscription.nack(first)
        assert await recorder.word() == f"withdrawn: {second.token}"
        assert peer.count("NACK") == 0
        again = [await recorder.next(), await recorder.next()]
        assert [each.message.body for each in again] == [b"1", b"2"]
        assert not any(each.message.redelivered for each in again), "it counts what failed only"
        assert peer.discarded == []


async def test_refusing_discards(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        await it.put(b"poison")
        recorder, subscription = await it.consume(queue())
        assert subscription.reject(await recorder.next())
        await peer.frame("NACK")
        assert peer.discarded == [b"poison"]


async def test_what_a_lost_connection_had_is_marked(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        await it.put(b"1")
        recorder, subscription = await it.consume(queue())
        old = await recorder.next()
        (await peer.connection()).close()
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        again = await recorder.next()
        assert again.message.redelivered
        assert not subscription.ack(old)
        assert subscription.ack(again)


@pytest.mark.parametrize("prefixes", [True, False])
async def test_a_refused_subscribe_is_told_although_its_error_names_no_request(
    subject: Connect, prefixes: bool
) -> None:
    async with ArtemisPeer.serve(prefixes=prefixes) as peer, subject(peer.address) as it:
        peer.forbidden = {"jobs", "/queue/jobs"}
        with pytest.raises(BrokerRejected, match="does not have permission='CONSUME'"):
            await asyncio.wait_for(it.consume(queue()), 2)
        with pytest.raises(BrokerRejected, match="does not have permission='SEND'"):
            await asyncio.wait_for(it.put(), 2)
        await it.put(to=queue("other"))
        assert len(peer.connections) == 1


async def test_a_name_is_of_one_kind(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        await it.put(to=queue("both"))
        with pytest.raises(BrokerRejected):
            await it.put(to=topic("both"))


async def test_consumers_that_the_administrator_disconnects_are_back(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(queue())
        await peer.frame("SUBSCRIBE")
        peer.disconnect_consumers()
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        error = it.connector.status.last_error
        assert error is not None
        assert (error.code, "disconnected by server" in error.detail) == (LinkFault.INTERNAL, True)
        await it.put(b"1")
        assert (await recorder.next()).message.body == b"1"


async def test_an_ack_that_is_no_more_ends_nothing(subject: Connect) -> None:
    async with ArtemisPeer.serve() as peer, subject(peer.address) as it:
        await it.put(b"1")
        recorder, subscription = await it.consume(queue())
        delivery = await recorder.next()
        connection = await peer.connection()
        await connection.message((await peer.frame("SUBSCRIBE"))["id"], b"stray", ack="1,99")
        stray = await recorder.next()
        assert subscription.ack(stray)
        assert subscription.ack(replace(delivery))
        await it.put(b"2")
        assert (await recorder.next()).message.body == b"2"
        assert it.events == ["error_unattributed"]
        assert len(peer.connections) == 1
