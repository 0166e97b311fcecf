"""`consume_from: all`: brokers that confirm late, or for a while not at all, are deaf no longer than they are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.connectors.stomp import reminders, restore, spread
from app.connectors.stomp.member import Member
from app.connectors.stomp.spread import Spread
from app.domain.errors import BrokerUnavailable
from app.domain.link import Connections
from app.gateway.stream import Counts, StreamRequest
from app.gateway.takings import Takings
from app.gateway.topic import Topic
from tests.contract.conftest import WAIT
from tests.faults.alias_site import ACTIVEMQ, ALL, Names, Open, Site, standing, until
from tests.faults.conftest import Connect, Subject, queue, topic
from tests.faults.peer import Connection, ScriptedPeer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", 0.02)
    monkeypatch.setattr(reminders, "AGAIN", 0.05)


def members(here: Site) -> list[Member]:
    known = here.it.connector._alias
    assert known is not None
    return known.members


def feed(it: Subject) -> Topic:
    news = topic()
    return Topic(
        news, TopicSettings(), it.connector, counts=Counts, on_gap=lambda _reason: None, grew=lambda _size: None
    )


async def confirms_at_last(peer: ScriptedPeer) -> tuple[Connection, str]:
    """It has not confirmed in time, and does so from now on; where it is asked again."""
    connection, _ = await peer.frame_from("SUBSCRIBE")
    await peer.frame("UNSUBSCRIBE")
    peer.script.receipts = True
    await connection.release()
    again, frame = await peer.frame_from("SUBSCRIBE")
    assert again is connection, "it was healthy all the time"
    return connection, frame["id"]


async def test_one_that_did_not_confirm_in_time_is_asked_again(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        jobs, _ = await here.it.consume(queue(), timeout=0.1)
        connection, asked = await confirms_at_last(two)
        await connection.message(asked, b"2", ack="1")
        assert (await jobs.next()).message.body == b"2"
        await here.names.again(5)
        assert two.count("SUBSCRIBE") == 2, "and then no more"


async def test_the_ring_of_a_topic_has_the_gap_of_one_that_is_late(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        news = feed(here.it)
        reader = await news.open(StreamRequest(format="envelope"), 0.1)
        connection, asked = await confirms_at_last(two)
        await connection.message(asked, b"from two")
        async with asyncio.timeout(WAIT):
            await reader.ready()
        data = reader.take().data
        assert 0 < data.find(b"link_lost") < data.find(b"from two")


async def test_one_whose_connection_comes_up_when_the_time_is_over(site: Open) -> None:
    async with site(1) as here, ScriptedPeer.listen() as two:
        two.script.connected = None
        here.names.say("alias", here.peers[0], two)
        await two.frame("CONNECT")
        news, _ = await here.it.consume(topic(), timeout=0.1)
        two.script.receipts = False
        await two.connections[0].send("CONNECTED", {"version": "1.2", "heart-beat": "0,0"})
        connection, asked = await confirms_at_last(two)
        assert [await news.word(), await news.word()] == ["lost", "restored"]
        await connection.message(asked, b"2")
        assert (await news.next()).message.body == b"2"


async def test_one_that_does_not_confirm_on_two_connections_is_asked_again(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "DEADLINE", 0.1)
    async with site() as here:
        two = here.peers[1]
        news, _ = await here.it.consume(topic())
        first, _ = await two.frame_from("SUBSCRIBE")
        two.script.receipts = False
        first.close()
        second, _ = await two.frame_from("SUBSCRIBE")
        await second.wait_ended()
        await confirms_at_last(two)
        told = [await news.word() for _ in range(4)]
        assert told == ["lost", "restored"] * 2, "it was given up, and it stands again"
        assert standing(here) == 2


async def test_one_that_refuses_is_left_alone(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        consuming = asyncio.ensure_future(here.it.consume(queue()))
        connection, frame = await two.frame_from("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": frame["receipt"], "message": "not authorized"})
        await consuming
        await two.none("SUBSCRIBE", 0.2)


async def test_who_closes_is_not_subscribed_again(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        _, subscription = await here.it.consume(topic(), timeout=0.1)
        await two.frame("SUBSCRIBE")
        await two.frame("UNSUBSCRIBE")
        await subscription.close(WAIT)
        await two.none("SUBSCRIBE", 0.2)


@pytest.mark.parametrize("is_stale", [True, False], ids=["renewed", "lost"])
async def test_who_closes_while_a_connection_is_waited_for_leaves_nothing_at_the_broker(
    site: Open, is_stale: bool
) -> None:
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        _, subscription = await here.it.consume(topic(), timeout=0.1)
        connection, asked = await two.frame_from("SUBSCRIBE")
        await two.frame("UNSUBSCRIBE")
        two.script.receipts, two.script.connected = True, None
        await connection.release()
        assert isinstance(subscription, Spread)
        (member,) = (each for each in members(here) if each.address.port == two.port)
        if is_stale:
            assert member.link.current is not None
            member.link.current.stale.add(asked["destination"])
        else:
            connection.close()
        await two.frames("CONNECT", 2)
        if not is_stale:
            subscription._ask_again(member)
        await subscription.close(WAIT)
        await two.connections[1].send("CONNECTED", {"version": "1.2", "heart-beat": "0,0"})
        await here.all_up()
        await two.none("SUBSCRIBE", 0.1)


async def test_a_late_answer_of_one_that_was_parted_with_restores_nothing(site: Open) -> None:
    async with site() as here:
        one, two = here.peers
        two.script.receipts = False
        news, _ = await here.it.consume(topic())
        connection, _ = await two.frame_from("SUBSCRIBE")
        here.names.say("alias", one)
        await two.frame("UNSUBSCRIBE")
        assert [await news.word(), await news.word()] == ["lost", "restored"]
        await one.shut()
        assert await news.word() == "lost"
        two.script.receipts = True
        await connection.release()
        await news.nothing(0.1)
        assert standing(here) == 0


@pytest.mark.parametrize("what", [queue, topic])
async def test_a_black_hole_holds_up_nobody_whose_broker_comes_back(
    subject: Connect, names: Names, what: Callable[[], Destination]
) -> None:
    async with ScriptedPeer.listen() as one, ScriptedPeer.listen() as hole:
        hole.script.connected = None
        names.say("alias", one)
        async with subject("alias:1", **ALL, connect_timeout=WAIT) as it:
            await until(lambda: it.connector.status.connections == Connections(2, 2))
            names.say("alias", one, hole)
            await hole.frame("CONNECT")
            await one.shut()
            await until(lambda: it.connector.status.connections.up == 0)
            consuming = asyncio.ensure_future(it.consume(what()))
            await names.again()
            await one.open()
            recorder, subscription = await asyncio.wait_for(consuming, 1)
            connection, frame = await one.frame_from("SUBSCRIBE")
            await connection.message(frame["id"], b"1", ack="1")
            assert (await recorder.next()).message.body == b"1"
            assert recorder.told.empty()
            await subscription.close(WAIT)


async def test_what_a_broker_took_back_while_others_are_waited_for_is_not_leased(
    site: Open, takings: Takings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", WAIT)
    async with site(connected=ACTIVEMQ) as here:
        one, two = here.peers
        two.script.receipts = False
        jobs, connector = queue(), here.it.connector
        taking = asyncio.ensure_future(takings.take(jobs, connector, most=1, seconds=60, wait=WAIT))
        (first, asked), (second, asked_second) = await here.subscribed()
        await first.message(asked, b"1", ack="1")
        await until(lambda: standing(here) == 1)
        await second.message(asked_second, b"2", ack="1")
        await until(lambda: standing(here) == 2)
        await one.shut()
        await until(lambda: standing(here) == 1)
        await second.release()
        (lease,) = await taking
        assert lease.delivery.message.body == b"2"
        assert takings.ack(jobs.uri, takings.token(lease)) == "done"


async def test_one_incident_of_three_brokers_accuses_no_destination(site: Open) -> None:
    async with site(3) as here:
        for peer in here.peers:
            peer.script.receipts = False
        consuming = asyncio.ensure_future(here.it.consume(queue()))
        asked = await here.subscribed()
        for peer, (connection, _) in zip(here.peers, asked, strict=True):
            peer.script.receipts = True
            connection.close()
        with pytest.raises(BrokerUnavailable):
            await consuming
        await here.all_up()
        assert not here.it.connector.quarantined(queue())
