"""Other settings for a connector at work: what has to do with the connection, and what has not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from app.config.settings import ServiceSettings
from app.connectors.stomp import addresses, succession
from app.connectors.stomp.addresses import Address
from app.domain.errors import InvalidHeader, OutcomeUnknown
from app.domain.link import LinkFault, LinkState
from app.domain.message import Publication
from app.domain.uri import MqUri
from tests.brokers.process import free_port
from tests.faults.conftest import Connect, Subject, queue, topic
from tests.faults.peer import ScriptedPeer


def changed(it: Subject, **options: Any) -> bool:
    """Reconfigure with these options beside the present ones."""
    present = {name: getattr(it.settings, name) for name in it.settings.model_fields_set}
    it.settings = ServiceSettings.model_validate({**present, **options})
    return it.connector.reconfigure(it.settings)


async def test_other_destinations_leave_the_connection_as_it_is(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(topic())
        connection, asked = await peer.frame_from("SUBSCRIBE")
        reply = Publication(body=b"", message_id="1", reply_to=MqUri.parse("svc::Queues::answers"))
        with pytest.raises(InvalidHeader):
            await it.connector.publish(queue(), reply, timeout=1)
        assert changed(it, queues={"answers": {}})
        await it.connector.publish(queue(), reply, timeout=1)
        assert (await peer.frame("SEND"))["reply-to"] == "/queue/answers"
        await connection.message(asked["id"], b"", reply_to="/queue/answers")
        assert (await recorder.next()).message.headers["reply-to"] == "svc::Queues::answers"
        assert (len(peer.connections), it.states) == (1, [LinkState.UP])


async def test_another_vhost_takes_another_connection_when_what_is_in_flight_has_ended(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(topic())
        old, _ = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        in_flight = it.putting(b"before")
        await peer.frame("SEND")
        assert changed(it, vhost="/other")
        during = it.putting(b"during")
        await peer.none("DISCONNECT", 0.1)
        assert peer.count("CONNECT") == 1, "not before the RECEIPT"
        peer.script.receipts = True
        await old.release()
        await in_flight
        assert (await peer.frame_from("DISCONNECT"))[0] is old
        new = await peer.connection(2)
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        await during
        assert (await peer.frame("CONNECT"))["host"] == "/"
        assert (await peer.frame("CONNECT"))["host"] == "/other"
        connection, sent = await peer.frame_from("SEND")
        assert (connection, sent.body) == (new, b"during")
        assert it.states == [LinkState.UP, LinkState.CONNECTING, LinkState.UP]
        assert it.fault is None, "nothing went wrong"
        await subscription.close(1)


async def test_hosts_that_were_looked_up_before_a_reload_do_not_see_its_password(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedPeer.listen() as old, ScriptedPeer.listen() as new:
        ports, asked, answers = {"old": old.port, "new": new.port}, asyncio.Event(), asyncio.Event()

        async def lookup(name: str, _port: int) -> list[Address]:
            asked.set()
            await answers.wait()
            return [Address(name, "127.0.0.1", ports[name])]

        monkeypatch.setattr(addresses, "lookup", lookup)
        async with subject("old:1", up=False) as it:
            await asked.wait()
            assert changed(it, hosts=["new:1"], password="other")
            answers.set()
            assert (await new.frame("CONNECT"))["passcode"] == "other"
            assert (await old.frame("CONNECT"))["passcode"] == "secret"
            assert old.count("CONNECT") == 1


async def test_a_broker_that_does_not_answer_is_not_waited_for_for_ever(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "RETIRE_SECONDS", 0.1)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        peer.script.receipts = False
        in_flight = it.putting()
        await peer.frame("SEND")
        assert changed(it, vhost="/other")
        with pytest.raises(OutcomeUnknown):
            await in_flight
        await peer.connection(2)
        await it.until(lambda: it.states[-2:] == [LinkState.CONNECTING, LinkState.UP])


async def test_a_configuration_that_changes_during_an_attempt_is_the_one_in_force_in_the_end(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer:
        peer.script.connected = None
        async with subject(peer.address, up=False) as it:
            await peer.frame("CONNECT")
            assert changed(it, password="other")
            first = await peer.connection(1)
            peer.script.connected = {"version": "1.2", "heart-beat": "0,0"}
            await first.send("CONNECTED", peer.script.connected)
            assert (await peer.frame("CONNECT"))["passcode"] == "other"
            assert (await peer.frame_from("DISCONNECT"))[0] is first
            await it.put()
            assert (await peer.frame_from("SEND"))[0] is await peer.connection(2)


async def test_a_link_that_waits_tries_at_once_with_other_settings_or_when_told(subject: Connect) -> None:
    slow = {"initial": 60, "max": 60}
    dead = f"127.0.0.1:{free_port()}"
    async with ScriptedPeer.listen() as peer, subject(dead, up=False, reconnect=slow) as it:
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.REFUSED
        it.connector.retry()
        await it.until(lambda: it.states.count(LinkState.DOWN) == 2)
        assert changed(it, hosts=[peer.address])
        await it.state(LinkState.UP)


@pytest.mark.parametrize("options", [{"connections": "split"}, {"mq_type": "Memory"}], ids=str)
async def test_what_only_a_new_connector_can_do(subject: Connect, options: dict[str, str]) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        assert not changed(it, **options)
        assert it.connector.settings.connections == "single"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.connection(2)
        assert len(peer.connections) == 1
