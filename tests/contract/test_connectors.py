"""What every MQConnector does, on every kind: in memory, on RabbitMQ, on ActiveMQ."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

import pytest

from app.config.settings import QueueSettings
from app.connectors.base import Delivery, Destination
from app.domain.errors import ConnectionLost, Draining, InvalidHeader, NoReply, NotSupportedByBroker
from app.domain.link import LinkState
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri
from app.wire.ids import new_message_id
from tests.contract.conftest import ARTEMIS_SITES, SITES, WAIT, Recorder, Site

REPLYING = pytest.mark.parametrize("site", SITES, indirect=True)

BODIES = [
    b"",
    b"x",
    b"\0",
    b"a\0b\0\0",
    b"\xff\xfe\x80",
    b"\r",
    b"one\rtwo\r\nthree\n",
    b"data: x\nid: 9\nevent: gap\n\n",
    b"MESSAGE\ndestination:/queue/x\ncontent-length:1\n\nx\0",
    b"\n\0\n",
    "blåbærgrød €".encode(),
    bytes(range(256)) * 64,
]


def publication(body: bytes = b"hello", **fields: Any) -> Publication:
    return Publication(body=body, message_id=new_message_id(), **fields)


async def publish(site: Site, destination: Destination, *bodies: bytes, **fields: Any) -> None:
    for body in bodies:
        await site.connector.publish(destination, publication(body, **fields), timeout=WAIT)


async def consume(site: Site, destination: Destination, *, prefetch: int = 10) -> tuple[Recorder, Any]:
    recorder = Recorder()
    acknowledge = destination.uri.is_queue or destination.subscription is not None
    subscription = await site.connector.subscribe(
        destination, recorder, acknowledge=acknowledge, prefetch=prefetch, timeout=WAIT
    )
    return recorder, subscription


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(bytes(body[:12])))
async def test_behaviour_26_27_a_body_arrives_byte_for_byte(site: Site, body: bytes) -> None:
    queue = site.queue()
    await publish(site, queue, body, content_type="application/octet-stream")
    recorder, subscription = await consume(site, queue)
    delivery = await recorder.next()
    assert delivery.message.body == body
    assert delivery.message.content_type == "application/octet-stream"
    assert subscription.ack(delivery)
    await subscription.close(WAIT)


async def test_four_megabytes_arrive(site: Site) -> None:
    body = bytes(range(256)) * (4_000_000 // 256)
    queue = site.queue()
    recorder, subscription = await consume(site, queue)
    await publish(site, queue, body)
    delivery = await recorder.next()
    assert delivery.message.body == body
    assert subscription.ack(delivery)
    await subscription.close(WAIT)


async def test_the_typed_fields_and_headers_arrive(site: Site) -> None:
    queue = site.queue()
    other = site.queue()
    sent = publication(
        b"{}",
        content_type="application/json; charset=utf-8",
        headers={"JobID": "1", "owner": "ünï:cö\\de", "traceparent": "00-ab-cd-01"},
        correlation_id="c:1",
        type="job",
        priority=7,
        persistent=True,
        ttl_ms=60_000,
        reply_to=other.uri,
    )
    await site.connector.publish(queue, sent, timeout=WAIT)
    recorder, subscription = await consume(site, queue)
    message = (await recorder.next()).message
    assert message.message_id == sent.message_id
    assert message.mq_uri == queue.uri
    assert message.content_type == "application/json; charset=utf-8"
    assert not message.redelivered
    wanted = {
        "JobID": "1",
        "owner": "ünï:cö\\de",
        "traceparent": "00-ab-cd-01",
        "correlation-id": "c:1",
        "type": "job",
        "priority": "7",
        "persistent": "true",
        "reply-to": str(other.uri),
    }
    assert {name: message.headers.get(name) for name in wanted} == wanted
    assert not {"receipt", "destination", "ack", "message-id", "mq-message-id", "subscription"} & set(message.headers)
    await subscription.close(WAIT)


async def test_a_message_waits_until_somebody_comes(site: Site) -> None:
    queue = site.queue()
    await publish(site, queue, b"1", b"2", b"3")
    recorder, subscription = await consume(site, queue)
    assert [(await recorder.next()).message.body for _ in range(3)] == [b"1", b"2", b"3"]
    await subscription.close(WAIT)


async def test_consumers_of_a_queue_share(site: Site) -> None:
    queue = site.queue()
    one, first = await consume(site, queue, prefetch=1)
    two, second = await consume(site, queue, prefetch=1)
    await publish(site, queue, b"1", b"2")
    got = [await one.next(), await two.next()]
    assert sorted(delivery.message.body for delivery in got) == [b"1", b"2"]
    await one.nothing()
    await first.close(WAIT)
    await second.close(WAIT)


async def test_every_subscriber_of_a_topic_gets_every_message(site: Site) -> None:
    topic = site.topic()
    await publish(site, topic, b"nobody hears this")
    one, first = await consume(site, topic)
    two, second = await consume(site, topic)
    await publish(site, topic, b"1", b"2")
    for recorder in (one, two):
        assert [(await recorder.next()).message.body for _ in range(2)] == [b"1", b"2"]
    await first.close(WAIT)
    await publish(site, topic, b"3")
    assert (await two.next()).message.body == b"3"
    await one.nothing(0.1)
    await second.close(WAIT)


async def test_no_more_than_the_prefetch_is_outstanding(site: Site) -> None:
    queue = site.queue()
    recorder, subscription = await consume(site, queue, prefetch=2)
    bodies = [b"%d" % number * 10_240 for number in (1, 2, 3)]  # Artemis counts bytes
    await publish(site, queue, *bodies)
    first = await recorder.next()
    await recorder.next()
    await recorder.nothing()
    assert subscription.ack(first)
    assert (await recorder.next()).message.body == bodies[2]
    await subscription.close(WAIT)


async def test_an_ack_counts_once(site: Site) -> None:
    queue = site.queue()
    recorder, subscription = await consume(site, queue)
    await publish(site, queue, b"1")
    delivery = await recorder.next()
    assert subscription.ack(delivery)
    assert not subscription.ack(delivery)
    assert not subscription.nack(delivery)
    await publish(site, queue, b"still alive")
    assert (await recorder.next()).message.body == b"still alive"
    await subscription.close(WAIT)


async def test_closing_gives_back_what_was_not_acked(site: Site) -> None:
    queue = site.queue()
    await publish(site, queue, *(str(number).encode() for number in range(8)))
    recorder, subscription = await consume(site, queue, prefetch=4)
    taken = [await recorder.next() for _ in range(4)]
    assert subscription.ack(taken[0])
    acked = await recorder.next()  # its credit brought the fifth
    assert subscription.ack(acked)
    await recorder.next()
    await subscription.close(WAIT)
    await subscription.close(WAIT)
    again, second = await consume(site, queue, prefetch=100)
    rest = [await again.next() for _ in range(6)]
    bodies = {delivery.message.body: delivery.message.redelivered for delivery in rest}
    assert sorted(bodies) == [b"1", b"2", b"3", b"5", b"6", b"7"]
    assert {bodies[body] for body in (b"1", b"2", b"3")} == {site.marks_given_back}
    await again.nothing(0.2)
    await second.close(WAIT)


async def test_a_message_given_back_comes_again(site: Site) -> None:
    queue = site.queue()
    recorder, subscription = await consume(site, queue)
    await publish(site, queue, b"1")
    first = await recorder.next()
    assert not first.message.redelivered
    assert subscription.nack(first)
    assert not subscription.ack(first)
    second = await recorder.next()
    assert (second.message.body, second.message.redelivered) == (b"1", site.marks_given_back)
    assert subscription.ack(second)
    await subscription.close(WAIT)


async def test_a_refused_message_does_not_come_again(site: Site) -> None:
    queue = site.queue()
    await publish(site, queue, b"poison", b"next")
    recorder, subscription = await consume(site, queue, prefetch=1)
    poison = await recorder.next()
    assert subscription.reject(poison)
    assert not subscription.reject(poison)
    delivery = await recorder.next()
    assert delivery.message.body == b"next"
    assert subscription.ack(delivery)
    await subscription.close(WAIT)
    again, subscription = await consume(site, queue)
    await again.nothing()
    await subscription.close(WAIT)


async def test_a_message_whose_time_is_over_is_not_delivered(site: Site) -> None:
    queue = site.queue()
    await publish(site, queue, b"short", ttl_ms=1)
    await asyncio.sleep(0.05)
    await publish(site, queue, b"long", ttl_ms=60_000)
    recorder, subscription = await consume(site, queue)
    assert (await recorder.next()).message.body == b"long"
    await subscription.close(WAIT)


async def test_a_thousand_publishes_at_once(site: Site) -> None:
    queue = site.queue()
    await asyncio.gather(*(publish(site, queue, b"%d" % number) for number in range(1000)))
    assert site.connector.in_flight == 0
    recorder, subscription = await consume(site, queue, prefetch=100)
    got = set()
    for _ in range(1000):
        delivery = await recorder.next()
        got.add(delivery.message.body)
        assert subscription.ack(delivery)
    assert len(got) == 1000
    await subscription.close(WAIT)


async def test_unconfirmed_publishes_arrive(site: Site) -> None:
    queue = site.queue()
    await site.connector.publish(queue, publication(b"1"), timeout=WAIT, confirm=False)
    recorder, subscription = await consume(site, queue)
    assert (await recorder.next()).message.body == b"1"
    await subscription.close(WAIT)


@pytest.mark.parametrize("confirm", [True, False])
async def test_several_are_published_together_in_their_order(site: Site, confirm: bool) -> None:
    queue, bodies = site.queue(), [b"%d" % number for number in range(1000)]
    await site.connector.publish_together(queue, [publication(body) for body in bodies], timeout=WAIT, confirm=confirm)
    assert site.connector.in_flight == 0
    recorder, subscription = await consume(site, queue, prefetch=100)
    for body in bodies:
        delivery = await recorder.next()
        assert delivery.message.body == body
        assert subscription.ack(delivery)
    await subscription.close(WAIT)


async def test_several_reach_every_subscriber_of_a_topic(site: Site) -> None:
    topic = site.topic()
    (one, first), (two, second) = await consume(site, topic), await consume(site, topic)
    await site.connector.publish_together(topic, [publication(b"1"), publication(b"2")], timeout=WAIT)
    for recorder in (one, two):
        assert [(await recorder.next()).message.body for _ in range(2)] == [b"1", b"2"]
    await first.close(WAIT)
    await second.close(WAIT)


async def test_one_that_is_refused_keeps_the_others_back(site: Site) -> None:
    queue = site.queue()
    has_groups = site.connector.service.startswith(("activemq", "artemis"))
    bad = publication(b"2", headers={"a": ":" * 60_000}) if has_groups else publication(b"2", group="g")
    with pytest.raises((NotSupportedByBroker, InvalidHeader)):
        await site.connector.publish_together(queue, [publication(b"1"), bad], timeout=WAIT)
    await publish(site, queue, b"3")
    recorder, subscription = await consume(site, queue)
    assert (await recorder.next()).message.body == b"3"
    await recorder.nothing()
    await subscription.close(WAIT)


@pytest.mark.parametrize("fields", [{"delay_ms": 5}, {"group": "g"}], ids=["delay", "group"])
async def test_what_is_not_mapped_is_refused_before_the_wire(site: Site, fields: dict[str, Any]) -> None:
    queue = site.queue()
    if site.connector.service.startswith(("activemq", "artemis")):
        site.connector.check(queue, publication(**fields))  # it has words for both: see the next tests
        return
    with pytest.raises(NotSupportedByBroker):
        site.connector.check(queue, publication(**fields))
    with pytest.raises(NotSupportedByBroker):
        await publish(site, queue, b"x", **fields)
    assert site.connector.status.state is LinkState.UP


async def test_a_delayed_message_comes_later(activemq_site: Site) -> None:
    queue = activemq_site.queue()
    recorder, subscription = await consume(activemq_site, queue)
    begun = time.monotonic()
    await publish(activemq_site, queue, b"later", delay_ms=700)
    await publish(activemq_site, queue, b"now")
    first, second = await recorder.next(), await recorder.next()
    assert [first.message.body, second.message.body] == [b"now", b"later"]
    assert time.monotonic() - begun > 0.6
    await subscription.close(WAIT)


async def test_a_group_has_one_consumer(activemq_site: Site) -> None:
    queue = activemq_site.queue()
    consumers = [await consume(activemq_site, queue, prefetch=1) for _ in range(2)]
    for number in range(6):
        await publish(activemq_site, queue, b"%d" % number, group="one")
    got: list[tuple[int, bytes]] = []
    while len(got) < 6:
        for index, (recorder, subscription) in enumerate(consumers):
            with contextlib.suppress(TimeoutError):
                delivery = await recorder.next(0.2)
                got.append((index, delivery.message.body))
                assert subscription.ack(delivery)
    assert len({index for index, _ in got}) == 1
    assert [body for _, body in got] == [b"%d" % number for number in range(6)]
    for _, subscription in consumers:
        await subscription.close(WAIT)


async def test_behaviour_29_names_with_special_characters_are_one_and_the_same_queue(site: Site) -> None:
    queue = site.queue()
    uri = MqUri(queue.uri.service, queue.uri.type, f"a/b c%é-{queue.uri.name}")
    odd = Destination(uri, queue.settings)
    await publish(site, odd, b"1")
    recorder, subscription = await consume(site, odd)
    delivery: Delivery = await recorder.next()
    assert delivery.message.body == b"1"
    await subscription.close(WAIT)


async def test_a_closed_connector_takes_no_work(site: Site) -> None:
    await site.connector.close(WAIT)
    with pytest.raises(Draining):
        await publish(site, site.queue(), b"x")
    await site.connector.close(WAIT)


async def _respond(site: Site, request: Delivery, body: bytes, **fields: Any) -> None:
    """As a responder that speaks to the broker itself: to the path in reply-to, under the same correlation id."""
    uri = MqUri(site.connector.service, DestinationType.QUEUES, "reply")
    reply_to = Destination(uri, QueueSettings(destination=request.message.headers["reply-to"]))
    reply = publication(body, correlation_id=request.message.headers["correlation-id"], **fields)
    await site.connector.publish(reply_to, reply, timeout=WAIT)


@REPLYING
@pytest.mark.parametrize("kind", ["queue", "topic"])
async def test_a_request_gets_its_reply(site: Site, kind: str) -> None:
    destination = site.queue() if kind == "queue" else site.topic()
    recorder, subscription = await consume(site, destination)
    asked = publication(b"question", correlation_id="mine", headers={"JobID": "1"})
    task = asyncio.ensure_future(site.connector.request(destination, asked, timeout=WAIT))
    request = await recorder.next()
    assert request.message.body == b"question"
    assert request.message.message_id == asked.message_id
    assert request.message.headers["JobID"] == "1"
    assert request.message.headers["mq-correlation-id"] == "mine"
    assert request.message.headers["correlation-id"] != "mine"
    await _respond(site, request, b"\0answer\r\n\xff", content_type="image/png", headers={"who": "me"})
    reply = await asyncio.wait_for(task, WAIT)
    assert (reply.body, reply.content_type) == (b"\0answer\r\n\xff", "image/png")
    assert reply.headers["who"] == "me"
    assert reply.headers["correlation-id"] == request.message.headers["correlation-id"]
    assert reply.mq_uri == destination.uri
    await subscription.close(WAIT)


@REPLYING
async def test_many_requests_each_get_their_own_reply(site: Site) -> None:
    queue = site.queue()
    recorder, subscription = await consume(site, queue, prefetch=500)
    asked = [publication(b"%d" % number, correlation_id="same") for number in range(200)]
    tasks = [asyncio.ensure_future(site.connector.request(queue, one, timeout=WAIT)) for one in asked]
    requests = [await recorder.next() for _ in asked]
    random.Random(1).shuffle(requests)
    for request in requests:
        await _respond(site, request, b"to " + request.message.body)
        assert subscription.ack(request)
    replies = await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
    assert [reply.body for reply in replies] == [b"to %d" % number for number in range(200)]
    await subscription.close(WAIT)


@REPLYING
async def test_a_request_without_a_reply_ends_in_time_and_a_late_reply_is_counted(site: Site) -> None:
    queue = site.queue()
    with pytest.raises(NoReply):
        await site.connector.request(queue, publication(b"?"), timeout=1)
    recorder, subscription = await consume(site, queue)
    request = await recorder.next()
    await _respond(site, request, b"late")
    assert subscription.ack(request)
    task = asyncio.ensure_future(site.connector.request(queue, publication(b"?"), timeout=WAIT))
    request = await recorder.next()
    await _respond(site, request, b"in time")  # behind the late one
    assert (await asyncio.wait_for(task, WAIT)).body == b"in time"
    assert site.events.count("late_reply") == 1
    assert subscription.ack(request)
    await subscription.close(WAIT)


@REPLYING
async def test_a_request_ends_with_the_connector(site: Site) -> None:
    queue = site.queue()
    recorder, _ = await consume(site, queue)
    task = asyncio.ensure_future(site.connector.request(queue, publication(b"?"), timeout=60))
    await recorder.next()
    await site.connector.close(WAIT)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(task, WAIT)
    with pytest.raises(Draining):
        await site.connector.request(queue, publication(b"?"), timeout=1)


@pytest.mark.parametrize("site", ARTEMIS_SITES, indirect=True)
async def test_artemis_has_no_queue_for_replies(site: Site) -> None:
    with pytest.raises(NotSupportedByBroker):
        await site.connector.request(site.queue(), publication(b"?"), timeout=1)
