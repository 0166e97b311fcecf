"""Another login at the same broker: the new connection is made before the present one gives way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.connectors.stomp import backoff
from app.domain.errors import OutcomeUnknown
from app.domain.link import LinkFault, LinkState
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject, publication, queue, topic
from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.faults.test_reconfigure import changed
from tests.stomp_frames import Frame

REFUSED = Frame("ERROR", {"message": "Bad CONNECT"}, b"Access refused for user 'guest'\n")
CONNECTED = {"version": "1.2", "heart-beat": "0,0"}
RABBIT = {**CONNECTED, "server": "RabbitMQ/3.10.8"}
NEVER = {"initial": 60, "max": 60}


async def logins(peer: ScriptedPeer, number: int) -> list[str]:
    """The passwords of the next CONNECTs."""
    return [frame["passcode"] for frame in await peer.frames("CONNECT", number)]


async def sent_on(it: Subject, peer: ScriptedPeer, body: bytes) -> Connection:
    """Publish; the connection it went out on."""
    await it.put(body)
    return (await peer.frame_from("SEND", where=lambda frame: frame.body == body))[0]


async def failed(it: Subject, times: int) -> None:
    """Wait until so many attempts to replace the connection failed."""
    await it.until(lambda: it.events.count("replacement_failed") >= times)


async def test_a_refused_login_leaves_the_present_connection_and_is_tried_again(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        old, asked = await peer.frame_from("SUBSCRIBE")
        peer.script.refusal = REFUSED
        assert changed(it, password="other")
        await failed(it, 2)
        assert it.fault is LinkFault.AUTH_FAILED
        assert it.connector.status.state is LinkState.UP
        assert it.connector.status.address == peer.address
        await old.message(asked["id"], b"1", ack="1")
        assert subscription.ack(await recorder.next())
        assert (await peer.frame_from("ACK"))[0] is old
        assert await sent_on(it, peer, b"beside") is old
        peer.script.refusal = None  # the broker has learnt it
        assert (await peer.frame_from("DISCONNECT"))[0] is old
        assert await sent_on(it, peer, b"after") is peer.connections[-1]
        assert (await recorder.word(), await recorder.word()) == ("lost", "restored")
        assert set((await logins(peer, peer.count("CONNECT")))[1:]) == {"other"}
        assert (it.states, it.connector.status.next_attempt_at) == ([LinkState.UP], None)


async def test_refused_logins_become_rare(subject: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "REFUSALS", 1)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        peer.script.refusal = REFUSED
        assert changed(it, password="other")
        await failed(it, 2)
        await peer.frames("CONNECT", 3)
        await peer.none("CONNECT", 0.2)  # FAST is four attempts in this time
        assert it.connector.status.next_attempt_at is not None
        it.connector.retry()  # SIGHUP
        await peer.frame("CONNECT")


async def test_who_is_in_flight_has_its_receipt_and_who_comes_does_not_wait_for_it(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(topic())
        old, first = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        in_flight = it.putting(b"before")
        await peer.frame("SEND")
        assert changed(it, password="other")
        new, again = await peer.frame_from("SUBSCRIBE")
        assert new is await peer.connection(2)
        assert again["id"] != first["id"]
        peer.script.receipts = True
        await new.release()
        assert (await recorder.word(), await recorder.word()) == ("lost", "restored")
        assert await sent_on(it, peer, b"during") is new
        assert not in_flight.done()
        assert peer.count("DISCONNECT") == 0
        await old.release()
        await in_flight
        assert (await peer.frame_from("DISCONNECT"))[0] is old
        await old.wait_ended()
        assert await logins(peer, 2) == ["secret", "other"]
        assert (it.states, it.fault, it.events) == ([LinkState.UP], None, [])


async def test_an_ack_never_crosses_to_the_new_connection(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        old, first = await peer.frame_from("SUBSCRIBE")
        await old.message(first["id"], b"1", ack="1")
        delivery = await recorder.next()
        peer.script.receipts = False
        in_flight = it.putting()
        await peer.frame("SEND")
        assert changed(it, password="other")
        new, again = await peer.frame_from("SUBSCRIBE")
        await new.release()
        assert (await recorder.word(), await recorder.word()) == ("lost", "restored")
        await old.message(first["id"], b"late", ack="2")
        await it.until(lambda: "message_without_subscription" in it.events)
        await new.message(again["id"], b"2", ack="1")
        assert not subscription.ack(delivery)
        second = await recorder.next()
        assert second.message.body == b"2"
        assert subscription.ack(second)
        assert (await peer.frame_from("ACK"))[0] is new
        assert peer.count("ACK") == 1
        await old.release()
        await in_flight


async def test_no_publish_fails_for_a_rotation(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        over = asyncio.Event()

        async def publish(name: bytes) -> int:
            number = 0
            while not over.is_set():
                number += 1
                await it.put(name)
                several = [publication(name, headers={"n": str(n)}) for n in range(3)]
                await it.connector.publish_together(queue(), several, timeout=WAIT)
            return number

        publishing = [asyncio.ensure_future(publish(b"%d" % number)) for number in range(20)]
        for number in range(2, 12):
            assert changed(it, password=f"p{number}")
            await peer.connection(number)
            await peer.frame("DISCONNECT")
        over.set()
        assert min(await asyncio.gather(*publishing)) > 0
        assert it.states == [LinkState.UP]
        assert {connection.number for connection, frame in peer.received if frame.command == "SEND"} > {2, 3, 4}


async def test_a_publish_that_waits_for_room_goes_out_on_the_new_connection(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        old = await peer.connection(1)
        old.stop_reading()
        stuck = [it.putting(b"x" * 1_000_000) for _ in range(8)]
        await it.full()
        waiting = it.putting(b"waits")
        await asyncio.sleep(0)
        assert changed(it, password="other")
        await peer.frames("CONNECT", 2)
        old.resume_reading()
        new, _ = await peer.frame_from("SEND", where=lambda frame: frame.body == b"waits")
        await waiting
        await asyncio.gather(*stuck)
        assert new is await peer.connection(2)


async def test_a_publish_that_waits_for_a_declaration_goes_out_on_the_new_connection(subject: Connect) -> None:
    script, stream = Script(connected=RABBIT, receipts=False), {"replay": "stream"}
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, topics={"alerts": stream}) as it:
        old, _ = await peer.frame_from("SUBSCRIBE")
        waiting = it.putting(b"waits", to=topic("alerts", **stream))
        await asyncio.sleep(0)
        assert changed(it, password="other")
        new, _ = await peer.frame_from("SUBSCRIBE")
        assert new is not old
        script.receipts = True
        await new.release()
        await waiting
        assert (await peer.frame_from("SEND"))[0] is new
        assert it.states == [LinkState.UP]


async def test_a_subscription_that_is_being_made_meanwhile_is_made_on_the_new_one(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await it.consume(queue())
        await peer.frame("SUBSCRIBE")
        peer.script.receipts = False
        subscribing = asyncio.ensure_future(it.consume(topic()))
        old, _ = await peer.frame_from("SUBSCRIBE")
        assert changed(it, password="other")
        new, _ = await peer.frame_from("SUBSCRIBE")
        assert new is await peer.connection(2)
        peer.script.receipts = True
        await new.release()
        await old.release()
        recorder, _ = await subscribing
        connection, asked = await peer.frame_from("SUBSCRIBE")
        assert connection is new
        await new.message(asked["id"], b"here")
        assert (await recorder.next()).message.body == b"here"


async def test_a_broker_that_hangs_at_connect_disturbs_nobody(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        peer.script.connected = None
        assert changed(it, password="other", connect_timeout=0.05)
        await failed(it, 2)
        assert (it.fault, it.connector.status.state) == (LinkFault.TIMEOUT, LinkState.UP)
        await (await peer.connection(2)).wait_ended()
        assert await sent_on(it, peer, b"beside") is peer.connections[0]
        peer.script.connected = CONNECTED
        assert (await peer.frame_from("DISCONNECT"))[0] is peer.connections[0]


@pytest.mark.parametrize("refused", [True, False], ids=["it waits", "it hangs"])
async def test_where_the_old_one_is_lost_during_an_attempt_the_new_login_is_used(
    subject: Connect, refused: bool
) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        old = await peer.connection(1)
        peer.script.refusal, peer.script.connected = (REFUSED if refused else None), None
        assert changed(it, password="other", reconnect=NEVER)
        attempt = await peer.connection(2)
        await peer.frames("CONNECT", 2)
        if refused:
            await failed(it, 1)
        peer.script.refusal, peer.script.connected = None, CONNECTED
        old.close()
        await attempt.wait_ended()
        await it.until(lambda: it.states == [LinkState.UP, LinkState.CONNECTING, LinkState.UP])
        assert await logins(peer, 1) == ["other"]
        assert await sent_on(it, peer, b"after") is await peer.connection(3)
        assert len(peer.connections) == 3


async def test_a_second_reload_counts(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        peer.script.connected = None
        assert changed(it, password="first")
        attempt = await peer.connection(2)
        await peer.frames("CONNECT", 2)
        peer.script.connected = CONNECTED
        assert changed(it, password="second")
        await attempt.wait_ended()
        assert await logins(peer, 1) == ["second"]
        assert (await peer.frame_from("DISCONNECT"))[0] is peer.connections[0]
        assert await sent_on(it, peer, b"after") is await peer.connection(3)


async def test_a_reload_that_takes_it_back_leaves_everything_as_it_was(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        peer.script.connected = None
        assert changed(it, password="wrong")
        attempt = await peer.connection(2)
        assert changed(it, password="secret")
        await attempt.wait_ended()
        assert await sent_on(it, peer, b"after") is peer.connections[0]
        assert (len(peer.connections), it.states, it.fault) == (2, [LinkState.UP], None)


async def test_another_address_during_an_attempt_breaks_first(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, ScriptedPeer.listen() as other, subject(peer.address) as it:
        peer.script.connected = None
        assert changed(it, password="other")
        attempt = await peer.connection(2)
        assert changed(it, hosts=[other.address])
        await attempt.wait_ended()
        assert await sent_on(it, other, b"there") is await other.connection(1)
        assert it.states == [LinkState.UP, LinkState.CONNECTING, LinkState.UP]


async def test_a_client_id_is_given_up_before_it_is_used_again(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, client_id="gw") as it:
        assert changed(it, password="other")
        await peer.frames("CONNECT", 2)
        old, _ = await peer.frame_from("DISCONNECT")
        commands = [frame.command for _, frame in peer.received]
        assert commands == ["CONNECT", "DISCONNECT", "CONNECT"]
        await old.wait_ended()


@pytest.mark.parametrize("options", [{"reconnect": NEVER}, {"connect_timeout": 3}], ids=str)
async def test_what_counts_from_the_next_attempt_on_needs_none(subject: Connect, options: dict[str, Any]) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        assert changed(it, **options)
        await peer.frame("CONNECT")
        await peer.none("CONNECT", 0.05)


@pytest.mark.parametrize("way", ["hangs", "waits", "retires"])
async def test_an_end_meanwhile_leaves_nothing_behind(subject: Connect, way: str) -> None:
    before = asyncio.all_tasks()
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await it.consume(queue())
        await peer.frame("SUBSCRIBE")
        if way == "retires":
            peer.script.receipts = False
            in_flight = it.putting()
            await peer.frame("SEND")
        else:
            peer.script.connected = None
            peer.script.refusal = REFUSED if way == "waits" else None
        assert changed(it, password="other", reconnect=NEVER)
        await peer.frames("CONNECT", 2)
        if way == "waits":
            await failed(it, 1)
        if way == "retires":
            await peer.frame("SUBSCRIBE")
        await it.connector.close(0.2)
        assert it.states == [LinkState.UP, LinkState.DRAINING, LinkState.CLOSED]
        if way == "retires":
            with pytest.raises(OutcomeUnknown):
                await in_flight
        for connection in peer.connections:
            await connection.wait_ended()
        assert len(peer.connections) == 2
    assert asyncio.all_tasks() == before


async def test_each_of_two_connections_does_it_for_itself(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script()) as peer, subject(peer.address, connections="split") as it:
        recorder, _ = await it.consume(topic())
        consuming, _ = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        in_flight = it.putting(b"before")
        publishing, _ = await peer.frame_from("SEND")
        peer.script.receipts = True
        assert changed(it, password="other")
        assert (await recorder.word(), await recorder.word()) == ("lost", "restored")
        assert (await peer.frame_from("DISCONNECT"))[0] is consuming, "it does not wait for the other one"
        await publishing.release()
        await in_flight
        assert (await peer.frame_from("DISCONNECT"))[0] is publishing
        assert await sent_on(it, peer, b"after") in peer.connections[2:]
        assert await logins(peer, 4) == ["secret", "secret", "other", "other"]
        assert it.states == [LinkState.UP]


async def test_so_does_each_of_those_that_consume_from_all(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, consume_from="all") as it:
        recorder, _ = await it.consume(topic())
        await peer.frame("SUBSCRIBE")
        assert changed(it, password="other")
        await peer.frames("DISCONNECT", 2)
        connection, asked = await peer.frame_from("SUBSCRIBE")
        assert (await recorder.word(), await recorder.word()) == ("lost", "restored")
        await connection.message(asked["id"], b"here")
        assert (await recorder.next()).message.body == b"here"
        assert await logins(peer, 4) == ["secret", "secret", "other", "other"]
        assert it.states == [LinkState.UP]
