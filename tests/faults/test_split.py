"""`connections: split`: publishing and consuming do not wait for each other."""

from __future__ import annotations

import asyncio

import pytest

from app.domain.errors import OutcomeUnknown, Unavailable
from app.domain.link import LinkState
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, queue, topic
from tests.faults.peer import Script, ScriptedPeer

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8"}
SPLIT = {"connections": "split"}


async def test_each_has_a_connection_and_the_client_id_is_the_consuming_one_s(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, **SPLIT, client_id="gw") as it:
        assert it.states == [LinkState.UP], "up when both are"
        logins = {frame.headers.get("client-id"): conn for conn, frame in peer.received if frame.command == "CONNECT"}
        assert set(logins) == {None, "gw"}
        await it.put()
        recorder, subscription = await it.consume(queue())
        consuming, asked = await peer.frame_from("SUBSCRIBE")
        assert consuming is logins["gw"]
        await consuming.message(asked["id"], b"1", ack="T_1@@s@@1")
        assert subscription.ack(await recorder.next())
        assert (await peer.frame_from("ACK"))[0] is consuming
        assert (await peer.frame_from("SEND"))[0] is logins[None]
        assert len(peer.connections) == 2


async def test_behaviour_35_acks_pass_while_the_broker_reads_nothing_that_is_published(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address, **SPLIT) as it:
        await it.put()
        publishing, _ = await peer.frame_from("SEND")
        publishing.stop_reading()
        stuck = [it.putting(b"x" * 100_000, timeout=1) for _ in range(20)]
        recorder, subscription = await it.consume(queue())
        consuming, asked = await peer.frame_from("SUBSCRIBE")
        for number in range(50):
            await consuming.message(asked["id"], b"m", ack=f"T_1@@s@@{number}")
            assert subscription.ack(await recorder.next())
            assert (await peer.frame("ACK"))["id"] == f"T_1@@s@@{number}"
        ends = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(end, OutcomeUnknown | Unavailable) for end in ends), ends
        publishing.resume_reading()
        await it.put()


async def test_a_lost_publishing_connection_is_no_loss_for_consumers(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, **SPLIT) as it:
        recorder, _ = await it.consume(topic())
        consuming, asked = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        pending = it.putting()
        publishing, _ = await peer.frame_from("SEND")
        publishing.close()
        with pytest.raises(OutcomeUnknown):
            await pending
        await it.until(lambda: it.states == [LinkState.UP, LinkState.CONNECTING, LinkState.UP])
        peer.script.receipts = True
        await it.put()
        await consuming.message(asked["id"], b"still here")
        assert (await recorder.next()).message.body == b"still here"
        assert recorder.told.empty()


async def test_a_lost_consuming_connection_disturbs_no_publish(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, **SPLIT) as it:
        recorder, _ = await it.consume(topic())
        consuming, _ = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        pending = it.putting()
        publishing, _ = await peer.frame_from("SEND")
        peer.script.receipts = True
        consuming.close()
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        assert not pending.done()
        await publishing.release()
        await pending


async def test_both_are_disconnected_in_order(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, **SPLIT) as it:
        await it.connector.close(WAIT)
        ended = {id(connection) for connection, frame in peer.received if frame.command == "DISCONNECT"}
        assert len(ended) == 2
        assert it.states == [LinkState.UP, LinkState.DRAINING, LinkState.CLOSED]
