"""Request and reply when broker and responder misbehave: every caller gets its own reply, or one clear end."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.connectors.replies import Replies
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    NoReply,
    NotSupportedByBroker,
    Outcome,
    Overloaded,
)
from app.domain.link import LinkState
from app.domain.message import Message
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject, publication, queue
from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame

RABBITMQ = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}
ACTIVEMQ = {"version": "1.2", "server": "ActiveMQ/5.17.2", "heart-beat": "0,0"}
ARTEMIS = {"version": "1.2", "server": "ActiveMQ-Artemis/2.31.0", "heart-beat": "0,0"}
#: What RabbitMQ 3.10 says to a login that may not configure `^amq.gen`.
REFUSED = b"ACCESS_REFUSED - access to queue 'amq.gen-Xk2' in vhost '/' refused for user 'guest'"


@pytest.fixture
async def rabbitmq() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ)) as peer:
        yield peer


@pytest.fixture
async def activemq() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ)) as peer:
        yield peer


def asking(it: Subject, body: bytes = b"?", *, timeout: float = WAIT, **fields: Any) -> asyncio.Task[Message]:
    request = it.connector.request(queue(), publication(body, **fields), timeout=timeout)
    return asyncio.ensure_future(request)


async def reply(connection: Connection, request: Frame, body: bytes, **headers: str) -> None:
    """As RabbitMQ delivers what a responder sent to the reply-to."""
    known = {"correlation_id": request["correlation-id"], "content_type": "text/plain"}
    await connection.message(request["reply-to"], body, **{**known, **headers})


def waiting(it: Subject) -> Replies:
    return it.connector._requester._replies


async def test_rabbitmq_makes_the_queue_from_the_header(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        task = asking(it, b"question", correlation_id="mine")
        connection, sent = await rabbitmq.frame_from("SEND")
        assert re.fullmatch(r"/temp-queue/[0-9a-f]{16}", sent["reply-to"])
        assert re.fullmatch(r"[\w-]{22}", sent["correlation-id"])
        assert sent["mq-correlation-id"] == "mine"
        assert (sent["destination"], sent.body) == ("/queue/jobs", b"question")
        await reply(connection, sent, b"\0answer\xff", who="worker", amqp_message_id="r-1")
        message = await asyncio.wait_for(task, WAIT)
        assert (message.body, message.content_type, message.message_id) == (b"\0answer\xff", "text/plain", "r-1")
        assert message.headers == {"correlation-id": sent["correlation-id"], "who": "worker"}
        assert message.mq_uri == queue().uri
        assert rabbitmq.count("SUBSCRIBE") == 0
        assert it.connector.in_flight == 0


async def test_activemq_gets_a_subscription_for_everybody(subject: Connect, activemq: ScriptedPeer) -> None:
    async with subject(activemq.address) as it:
        tasks = [asking(it, b"%d" % number) for number in range(3)]
        subscribed = await activemq.frame("SUBSCRIBE")
        assert subscribed["ack"] == "auto"
        for sent in await activemq.frames("SEND", 3):
            assert sent["reply-to"] == subscribed["destination"]
            connection = await activemq.connection()
            answer = b"to " + sent.body
            await connection.message(subscribed["id"], answer, correlation_id=sent["correlation-id"])
        replies = await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
        assert [message.body for message in replies] == [b"to 0", b"to 1", b"to 2"]
        assert activemq.count("SUBSCRIBE") == 1


async def test_five_hundred_requests_get_their_own_reply(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        # All callers use the same id of their own.
        tasks = [asking(it, b"%d" % number, correlation_id="same") for number in range(500)]
        sent = await rabbitmq.frames("SEND", 500)
        assert len({frame["correlation-id"] for frame in sent}) == 500
        assert len({frame["reply-to"] for frame in sent}) == 1
        random.Random(7).shuffle(sent)
        connection = await rabbitmq.connection()
        for frame in sent:
            await reply(connection, frame, b"to " + frame.body)
        replies = await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
        assert [message.body for message in replies] == [b"to %d" % number for number in range(500)]
        assert len(waiting(it)) == 0
        assert it.events == []


@pytest.mark.parametrize("receipts", [True, False])
async def test_a_lost_connection_ends_every_request_at_once(subject: Connect, receipts: bool) -> None:
    script = Script(connected=RABBITMQ, receipts=receipts)
    async with ScriptedPeer.listen(script) as peer, subject(peer.address) as it:
        tasks = [asking(it) for _ in range(20)]
        first = (await peer.frames("SEND", 20))[0]
        if receipts:
            await it_settles(it)
        (await peer.connection()).reset()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        assert [type(result) for result in results] == [ConnectionLost] * 20
        assert ConnectionLost.outcome is Outcome.UNKNOWN
        assert len(waiting(it)) == 0
        script.receipts = True
        await it.state(LinkState.UP)
        task = asking(it)
        connection, sent = await peer.frame_from("SEND")
        assert connection.number == 2
        assert sent["reply-to"] != first["reply-to"]
        await reply(connection, first, b"to another life")
        await reply(connection, sent, b"mine")
        assert (await asyncio.wait_for(task, WAIT)).body == b"mine"


async def it_settles(it: Subject) -> None:
    """Every RECEIPT is in."""
    await asyncio.wait_for(it.connector._publisher.idle(), WAIT)


async def test_no_reply_is_unknown_and_a_late_one_is_counted(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        task = asking(it, timeout=0.2)
        connection, sent = await rabbitmq.frame_from("SEND")
        with pytest.raises(NoReply, match=r"took the request, and no reply came within 0\.2 s") as caught:
            await task
        assert caught.value.outcome is Outcome.UNKNOWN
        await reply(connection, sent, b"late")
        await it.until(lambda: it.events == ["late_reply"])
        await connection.message(sent["reply-to"], b"whose?")
        await it.until(lambda: it.events == ["late_reply"] * 2)
        assert len(waiting(it)) == 0
        assert it.connector.status.epoch == 1


async def test_a_second_reply_is_dropped_and_counted(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        task = asking(it)
        connection, sent = await rabbitmq.frame_from("SEND")
        await reply(connection, sent, b"first")
        await reply(connection, sent, b"second")
        assert (await asyncio.wait_for(task, WAIT)).body == b"first"
        await it.until(lambda: it.events == ["late_reply"])


async def test_without_a_receipt_it_is_a_publish_not_confirmed(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        with pytest.raises(ConfirmTimeout):
            await asking(it, timeout=0.1)
        assert it.connector.in_flight == 0


async def test_a_reply_that_overtakes_the_receipt_is_enough(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = asking(it)
        connection, sent = await peer.frame_from("SEND")
        await reply(connection, sent, b"already")
        assert (await asyncio.wait_for(task, WAIT)).body == b"already"
        assert it.connector.in_flight == 0


async def test_a_refused_request_ends_as_a_refused_publish(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ)) as peer, subject(peer.address) as it:
        first = asking(it)
        await reply_on_activemq(peer)
        await asyncio.wait_for(first, WAIT)
        peer.script.receipts = False
        task = asking(it)
        connection, sent = await peer.frame_from("SEND")
        await connection.send("ERROR", {"receipt-id": sent["receipt"], "message": "not allowed"})
        with pytest.raises(BrokerRejected, match="not allowed"):
            await asyncio.wait_for(task, WAIT)


async def reply_on_activemq(peer: ScriptedPeer) -> None:
    subscribed = await peer.frame("SUBSCRIBE")
    connection, sent = await peer.frame_from("SEND")
    await connection.message(subscribed["id"], b"!", correlation_id=sent["correlation-id"])


async def test_the_window_of_requests_leaves_publishes_alone(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address, window=3) as it:
        tasks = [asking(it) for _ in range(3)]
        await rabbitmq.frames("SEND", 3)
        await it_settles(it)
        with pytest.raises(Overloaded, match="3 requests"):
            await asking(it)
        await it.put()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(waiting(it)) == 0
        assert it.connector.in_flight == 0


@pytest.mark.parametrize("connected", [ARTEMIS, {"version": "1.2", "server": "other/1", "heart-beat": "0,0"}])
async def test_where_replies_are_not_mapped_nothing_is_sent(subject: Connect, connected: dict[str, str]) -> None:
    async with ScriptedPeer.listen(Script(connected=connected)) as peer, subject(peer.address) as it:
        with pytest.raises(NotSupportedByBroker, match="not mapped"):
            await asking(it)
        assert peer.count("SEND") == 0


async def test_a_login_without_the_right_is_not_tried_twice(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        rabbitmq.script.receipts = False
        task = asking(it)
        connection, _ = await rabbitmq.frame_from("SEND")
        await connection.send("ERROR", {"message": "access_refused"}, REFUSED)
        connection.close()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(task, WAIT)
        rabbitmq.script.receipts = True
        await it.state(LinkState.UP)
        for _ in range(2):
            with pytest.raises(NotSupportedByBroker, match="may not make queues"):
                await asking(it)
        assert rabbitmq.count("SEND") == 1
        await it.put()  # everything else works
        it.connector.retry()  # a reload of the configuration
        task = asking(it)
        connection, sent = await rabbitmq.frame_from("SEND", where=lambda frame: "reply-to" in frame.headers)
        await reply(connection, sent, b"now")
        assert (await asyncio.wait_for(task, WAIT)).body == b"now"


async def test_a_subscription_refused_by_activemq_is_tried_again(subject: Connect, activemq: ScriptedPeer) -> None:
    async with subject(activemq.address) as it:
        activemq.script.receipts = False
        task = asking(it)
        connection, subscribed = await activemq.frame_from("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": subscribed["receipt"], "message": "not authorized"})
        with pytest.raises(NotSupportedByBroker, match="not authorized"):
            await asyncio.wait_for(task, WAIT)
        assert activemq.count("SEND") == 0
        activemq.script.receipts = True
        task = asking(it)
        await reply_on_activemq(activemq)
        assert (await asyncio.wait_for(task, WAIT)).body == b"!"


async def test_a_subscription_that_is_not_confirmed_sent_nothing(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        with pytest.raises(BrokerUnavailable, match="does not confirm the queue for replies"):
            await asking(it, timeout=0.1)
        task = asking(it)
        (await peer.connection()).reset()
        with pytest.raises(BrokerUnavailable, match="lost"):
            await asyncio.wait_for(task, 2)
        assert peer.count("SEND") == 0


async def test_a_queue_the_broker_ends_is_replaced(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        task = asking(it)
        connection, first = await rabbitmq.frame_from("SEND")
        await it_settles(it)
        await connection.send("ERROR", {"subscription": first["reply-to"], "message": "Server cancelled subscription"})
        with pytest.raises(ConnectionLost, match="Server cancelled"):
            await asyncio.wait_for(task, 2)
        task = asking(it)
        connection, second = await rabbitmq.frame_from("SEND")
        assert second["reply-to"] != first["reply-to"]
        await reply(connection, second, b"here")
        assert (await asyncio.wait_for(task, WAIT)).body == b"here"


async def test_split_replies_come_on_the_connection_that_publishes(subject: Connect, activemq: ScriptedPeer) -> None:
    async with subject(activemq.address, connections="split") as it:
        task = asking(it)
        connection, subscribed = await activemq.frame_from("SUBSCRIBE")
        other, sent = await activemq.frame_from("SEND")
        assert other is connection
        await connection.message(subscribed["id"], b"!", correlation_id=sent["correlation-id"])
        assert (await asyncio.wait_for(task, WAIT)).body == b"!"


async def test_the_end_of_the_connector_ends_requests(subject: Connect, rabbitmq: ScriptedPeer) -> None:
    async with subject(rabbitmq.address) as it:
        task = asking(it)
        await rabbitmq.frame("SEND")
        await it.connector.close(1)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(task, 2)
