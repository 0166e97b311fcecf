"""Subscriptions across lost connections, refusals and brokers with habits of their own."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from app.connectors.stomp import restore
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConfirmTimeout, InvalidHeader
from app.domain.link import LinkFault, LinkState
from app.domain.uri import DestinationType, MqUri
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, publication, queue, topic
from tests.faults.peer import Script, ScriptedPeer
from tests.stomp_frames import Frame

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8"}
ACTIVE = {"version": "1.2", "server": "ActiveMQ/5.17.2"}


async def test_behaviour_10_after_a_reconnect_the_subscription_stands_under_a_new_id(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        first, old = await peer.frame_from("SUBSCRIBE")
        await first.message(old["id"], b"1", ack="T_1@@s@@1")
        delivery = await recorder.next()
        first.close()
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        second, new = await peer.frame_from("SUBSCRIBE")
        assert old["id"] != new["id"]
        assert not subscription.ack(delivery)
        assert not subscription.nack(delivery)
        await second.message(new["id"], b"1", ack="T_1@@s@@1", redelivered="true")
        again = await recorder.next()
        assert again.message.redelivered
        assert again.epoch > delivery.epoch
        assert subscription.ack(again)
        assert (await peer.frame("ACK"))["id"] == "T_1@@s@@1"
        await peer.none("ACK", 0.1)


async def test_a_lost_connection_keeps_no_consumer(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await it.consume(queue())
        session = it.connector._links[-1].current
        assert session is not None
        assert session._routes
        (await peer.connection()).close()
        await asyncio.wait_for(session.closed, WAIT)
        assert not session._routes


async def test_what_a_subscription_asks_for(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address) as it:
        await it.consume(queue("a/b", arguments={"x-queue-type": "quorum"}))
        asked = await peer.frame("SUBSCRIBE")
        assert asked["destination"] == "/queue/a%2Fb"
        assert (asked["ack"], asked["prefetch-count"], asked["x-queue-type"]) == ("client-individual", "10", "quorum")
        await it.consume(topic())
        asked = await peer.frame("SUBSCRIBE")
        assert asked["ack"] == "auto"
        assert "prefetch-count" not in asked.headers
        assert (asked["exclusive"], asked["auto-delete"], asked["durable"]) == ("true", "true", "false")
        await it.consume(queue("existing", declare=False))
        assert (await peer.frame("SUBSCRIBE"))["destination"] == "/amq/queue/existing"


async def test_behaviour_32_a_refused_subscription_leaves_the_others_alone(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(topic("good"))
        connection, good = await peer.frame_from("SUBSCRIBE")
        peer.script.receipts = False
        refused = asyncio.ensure_future(it.consume(topic("bad")))
        bad = await peer.frame("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": bad["receipt"], "message": "not authorized"})
        with pytest.raises(BrokerRejected, match="not authorized"):
            await asyncio.wait_for(refused, WAIT)
        await connection.message(good["id"], b"still here")
        assert (await recorder.next()).message.body == b"still here"


async def test_behaviour_32_an_error_then_a_receipt_then_the_end_is_a_refusal(subject: Connect) -> None:
    """RabbitMQ 3.10.8 sends a RECEIPT for a SUBSCRIBE it just refused."""
    async with ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer, subject(peer.address) as it:
        refused = asyncio.ensure_future(it.consume(queue("gone", declare=False)))
        connection, frame = await peer.frame_from("SUBSCRIBE")
        await connection.send("ERROR", {"message": "not_found"}, b"NOT_FOUND - no queue 'gone' in vhost '/'")
        await connection.send("RECEIPT", {"receipt-id": frame["receipt"]})
        connection.close()
        with pytest.raises(BrokerRejected, match="no queue 'gone'"):
            await asyncio.wait_for(refused, WAIT)
        await it.until(lambda: it.connector.status.epoch == 2)
        await peer.none("SUBSCRIBE", 0.1)


async def test_a_connection_lost_while_subscribing_is_worth_a_retry(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        opening = asyncio.ensure_future(it.consume(topic()))
        (await peer.frame_from("SUBSCRIBE"))[0].close()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(opening, WAIT)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "too late"])
async def test_a_subscription_nobody_waits_for_is_ended(subject: Connect, cancelled: bool) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        opening = asyncio.ensure_future(it.consume(topic(), timeout=WAIT if cancelled else 0.1))
        asked = await peer.frame("SUBSCRIBE")
        if cancelled:
            opening.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else ConfirmTimeout):
            await opening
        assert (await peer.frame("UNSUBSCRIBE"))["id"] == asked["id"]


async def test_behaviour_33_the_broker_may_end_one_subscription(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        doomed, subscription = await it.consume(queue("doomed"))
        other, _ = await it.consume(queue("other"))
        connection, frame = await peer.frame_from("SUBSCRIBE")
        second = await peer.frame("SUBSCRIBE")
        await connection.send("ERROR", {"subscription": frame["id"], "message": "server cancelled subscription"})
        assert "server cancelled" in await doomed.word()
        await connection.message(second["id"], b"fine", ack="2")
        assert (await other.next()).message.body == b"fine"
        connection.close()
        await it.until(lambda: it.connector.status.epoch == 2)
        assert (await peer.frame("SUBSCRIBE"))["destination"] == "/queue/other"
        await peer.none("SUBSCRIBE", 0.1)
        await subscription.close(WAIT)


@pytest.mark.parametrize("receipted", [False, True], ids=["ERROR, end", "ERROR, RECEIPT, end"])
async def test_a_subscription_that_kills_every_connection_is_found_and_dropped(
    subject: Connect, receipted: bool
) -> None:
    """Nobody is told which one it was, so after it killed a connection they are restored one by one."""
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorders = {name: (await it.consume(queue(name)))[0] for name in ("a", "poison", "z")}
        await peer.frames("SUBSCRIBE", 3)
        peer.script.receipts = False
        serving = asyncio.ensure_future(serve_poison(peer, receipted=receipted))
        (await peer.connection()).close()
        async with asyncio.timeout(WAIT):
            while not (word := await recorders["poison"].word()).startswith("cancelled"):
                pass
        assert "internal error" in word
        for name in ("a", "z"):
            await it.until(lambda: it.connector.status.state is LinkState.UP)
            while await recorders[name].word() != "restored":
                pass
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert len(peer.connections) <= 4


async def serve_poison(peer: ScriptedPeer, *, receipted: bool) -> None:
    """A broker that confirms subscriptions, and ends the connection for one of them."""
    while True:
        connection, frame = await peer.frame_from("SUBSCRIBE", WAIT)
        poison = frame["destination"] == "/queue/poison"
        with contextlib.suppress(OSError):  # sent on a connection that poison has just ended
            if poison:
                await connection.send("ERROR", {"message": "internal error"})
            if not poison or receipted:
                await connection.send("RECEIPT", {"receipt-id": frame["receipt"]})
        if poison:
            connection.close()


async def test_on_activemq_giving_back_means_subscribing_anew(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVE)) as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        connection, old = await peer.frame_from("SUBSCRIBE")
        assert old["activemq.prefetchSize"] == "10"
        await connection.message(old["id"], b"1", ack="a1")
        await connection.message(old["id"], b"2", ack="a2")
        first, second = await recorder.next(), await recorder.next()
        assert subscription.nack(first)
        assert (await peer.frame("UNSUBSCRIBE"))["id"] == old["id"]
        new = await peer.frame("SUBSCRIBE")
        assert not subscription.ack(second), "it went back with the first and comes again"
        assert await recorder.word() == "withdrawn: a2"
        await connection.message(new["id"], b"1", ack="a3", redelivered="true")
        assert subscription.ack(await recorder.next())
        assert peer.count("NACK") == 0


async def test_on_rabbitmq_unacked_messages_go_back_after_unsubscribe(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        connection, frame = await peer.frame_from("SUBSCRIBE")
        for number in (1, 2):
            token = f"T_{frame['id']}@@session-x@@{number}"
            await connection.send(
                "MESSAGE",
                {"subscription": frame["id"], "message-id": token, "ack": token, "destination": "/queue/jobs"},
            )
        await recorder.next()
        await recorder.next()
        await subscription.close(WAIT)
        await peer.frame("UNSUBSCRIBE")
        janitor = await peer.frame("SUBSCRIBE")
        returned = await peer.frames("NACK", 2)
        assert [nack["id"] for nack in returned] == [f"T_{janitor['id']}@@session-x@@{number}" for number in (1, 2)]
        assert {nack["requeue"] for nack in returned} == {"true"}
        # One more was under way when UNSUBSCRIBE took effect: it comes as an ERROR, its number is the next.
        text = f"There is no current subscription with tag 'T_{frame['id']}'.".encode()
        await connection.send("ERROR", {"message": "Subscription not found"}, text)
        assert (await peer.frame("NACK"))["id"] == f"T_{janitor['id']}@@session-x@@3"
        assert it.connector.status.epoch == 1


async def test_a_refused_janitor_costs_the_connection(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address) as it:
        recorder, subscription = await it.consume(queue())
        connection, frame = await peer.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"1", ack=f"T_{frame['id']}@@s@@1")
        await recorder.next()
        peer.script.receipts = False
        closing = asyncio.ensure_future(subscription.close(WAIT))
        await peer.frame("UNSUBSCRIBE")
        await connection.release()
        janitor = await peer.frame("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": janitor["receipt"], "message": "access_refused"})
        await asyncio.wait_for(closing, WAIT)
        await it.until(lambda: it.connector.status.epoch == 2)


async def test_a_message_for_nobody_is_counted(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await (await peer.connection()).message("0-77", b"?")
        await it.until(lambda: "message_without_subscription" in it.events)
        await it.put()


async def test_a_listener_that_fails_hurts_nobody_else(subject: Connect, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(topic())
        connection, frame = await peer.frame_from("SUBSCRIBE")
        recorder.on_message = None  # type: ignore[method-assign, assignment]
        await connection.message(frame["id"], b"x")
        await it.until(lambda: "listener_failed" in it.events)
        await it.put()
        assert it.connector.status.epoch == 1
        assert "a listener of /topic/news failed" in caplog.text


async def test_a_subscription_not_confirmed_again_ends_the_connection(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its readers would hear heart-beats for ever."""
    monkeypatch.setattr(restore, "DEADLINE", 0.1)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        recorder, _ = await it.consume(topic())
        peer.script.receipts = False
        (await peer.connection()).close()
        await it.until(lambda: it.fault is LinkFault.TIMEOUT)
        peer.script.receipts = True
        while await recorder.word() != "restored":
            pass


async def test_a_reply_to_is_what_the_configuration_calls_it(subject: Connect) -> None:
    queues = {"replies": {"destination": "/exchange/replies/gw"}, "existing": {"declare": False}, "a/b": {}}
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address, queues=queues) as it:
        for name, path in (("replies", "/exchange/replies/gw"), ("existing", "/amq/queue/existing")):
            reply_to = MqUri("svc", DestinationType.QUEUES, name)
            await it.connector.publish(queue(), publication(reply_to=reply_to), timeout=WAIT)
            assert (await peer.frame("SEND"))["reply-to"] == path
        recorder, _ = await it.consume(queue())
        connection, frame = await peer.frame_from("SUBSCRIBE")
        for path, shown in (
            ("/exchange/replies/gw", "svc::Queues::replies"),
            ("/queue/a%2Fb", "svc::Queues::a/b"),
            ("/queue/unknown", "/queue/unknown"),
            ("/temp-queue/x", "/temp-queue/x"),
        ):
            await connection.message(frame["id"], reply_to=path, ack="1")
            assert (await recorder.next()).message.headers["reply-to"] == shown


async def test_a_reply_to_nobody_declared_is_refused(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        with pytest.raises(InvalidHeader):
            await it.connector.publish(
                queue(), publication(reply_to=MqUri("svc", DestinationType.QUEUES, "nowhere")), timeout=WAIT
            )
        assert peer.count("SEND") == 0


async def test_a_subscription_ended_in_the_same_breath_is_not_kept(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        opening = asyncio.ensure_future(it.consume(topic()))
        connection, frame = await peer.frame_from("SUBSCRIBE")
        both = Frame("RECEIPT", {"receipt-id": frame["receipt"]}).encode()
        both += Frame("ERROR", {"subscription": frame["id"], "message": "cancelled"}).encode()
        await connection.send_bytes(both)
        with pytest.raises(BrokerRejected, match="cancelled"):
            await asyncio.wait_for(opening, WAIT)
        connection.close()
        await it.until(lambda: it.connector.status.epoch == 2)
        await peer.none("SUBSCRIBE", 0.1)


async def test_one_subscription_that_is_never_confirmed_costs_one_connection(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "DEADLINE", 0.1)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        mute, _ = await it.consume(topic("mute"))
        good, _ = await it.consume(topic("good"))
        await peer.frames("SUBSCRIBE", 2)
        peer.script.receipts = False
        confirming = asyncio.ensure_future(confirm_all_but(peer, "/topic/mute"))
        (await peer.connection()).close()
        async with asyncio.timeout(WAIT):
            while not (word := await mute.word()).startswith("cancelled"):
                pass
        while await good.word() != "restored":
            pass
        assert "does not confirm" in word
        assert len(peer.connections) == 3
        confirming.cancel()
        await asyncio.gather(confirming, return_exceptions=True)


async def confirm_all_but(peer: ScriptedPeer, path: str) -> None:
    while True:
        connection, frame = await peer.frame_from("SUBSCRIBE", WAIT)
        if frame["destination"] != path:
            with contextlib.suppress(OSError):
                await connection.send("RECEIPT", {"receipt-id": frame["receipt"]})


async def test_a_name_that_the_next_broker_cannot_have_ends_only_its_own_subscription(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVE)) as peer, subject(peer.address) as it:
        impossible, _ = await it.consume(queue("amq.jobs"))
        possible, _ = await it.consume(topic("news"))
        peer.script.connected = RABBIT
        (await peer.connection()).reset()
        assert await possible.word() == "lost"
        assert await possible.word() == "restored"
        assert await impossible.word() == "lost"
        assert (await impossible.word()).startswith("cancelled")
