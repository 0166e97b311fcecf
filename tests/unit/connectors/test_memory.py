"""Queues and topics inside the process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.settings import DestinationSettings, QueueSettings, ServiceSettings, TopicSettings
from app.connectors import memory_queue
from app.connectors.base import ConnectorContext, Delivery, Destination, Subscription
from app.connectors.memory import MemoryMQConnector
from app.domain.errors import Draining, NotSupportedByBroker, Overloaded
from app.domain.link import LinkState
from app.domain.message import Publication
from app.domain.uri import MqUri

QUEUE = Destination(MqUri.parse("m::Queues::jobs"), QueueSettings())
OTHER = Destination(MqUri.parse("m::Queues::other"), QueueSettings())
TOPIC = Destination(MqUri.parse("m::Topics::status"), TopicSettings())
TOPICS = {"alerts": {"subscriptions": ["archiver", "mailer"]}}
SETTINGS = ServiceSettings.model_validate({"mq_type": "Memory", "topics": TOPICS})


class Worker:
    """A listener; `subscription` is set by `consume`."""

    subscription: Subscription

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.at_once = False

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.deliveries]

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.at_once:
            assert self.subscription.ack(delivery)

    def on_lost(self) -> None:
        raise AssertionError("memory is never lost")

    def on_restored(self) -> None:
        raise AssertionError("memory is never lost")

    def on_withdrawn(self, token: str) -> None:
        raise AssertionError("memory waits for as long as it takes")

    def on_cancelled(self, detail: str) -> None:
        raise AssertionError(detail)


class Site:
    """A connector and what it told its context."""

    def __init__(self) -> None:
        self.states: list[tuple[LinkState, LinkState]] = []
        context = ConnectorContext(
            in_flight=1, on_state=lambda old, new: self.states.append((old, new)), on_event=lambda _event: None
        )
        self.connector = MemoryMQConnector("m", SETTINGS, context)

    async def put(self, *bodies: bytes, to: Destination = QUEUE, **fields: Any) -> None:
        for body in bodies:
            publication = Publication(body=body, message_id=f"id-{body!r}", **fields)
            await self.connector.publish(to, publication, timeout=0)

    async def consume(
        self, *, prefetch: int = 10, acknowledge: bool = True, of: Destination = QUEUE, worker: Worker | None = None
    ) -> Worker:
        worker = worker or Worker()
        worker.subscription = await self.connector.subscribe(
            of, worker, acknowledge=acknowledge, prefetch=prefetch, timeout=0
        )
        return worker


@pytest.fixture
async def site() -> Site:
    site = Site()
    await site.connector.start()
    return site


class Clock:
    """Unix time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


# The link.


async def test_the_link_is_up_from_start_to_close() -> None:
    site = Site()
    assert site.connector.status.state is LinkState.CONNECTING
    assert not site.connector.status.ever_up
    with pytest.raises(Draining):
        await site.put(b"early")
    await site.connector.start()
    await site.connector.start()
    status = site.connector.status
    assert (status.state, status.broker, status.ever_up) == (LinkState.UP, "Memory", True)
    await site.connector.close(0)
    await site.connector.close(0)
    assert site.states == [(LinkState.CONNECTING, LinkState.UP), (LinkState.UP, LinkState.CLOSED)]
    with pytest.raises(Draining, match="m takes no new work"):
        await site.put(b"late")
    assert site.connector.in_flight == 0


@pytest.mark.parametrize("field", [{"delay_ms": 1}, {"group": "g"}])
async def test_what_it_cannot_do_is_refused(site: Site, field: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedByBroker):
        await site.put(b"x", **field)


async def test_a_message_arrives_as_from_a_broker(site: Site) -> None:
    worker = await site.consume()
    await site.put(
        b"x",
        content_type="text/plain",
        headers={"JobID": "1"},
        correlation_id="c",
        type="t",
        priority=3,
        persistent=True,
        reply_to=OTHER.uri,
    )
    message = worker.deliveries[0].message
    assert (message.message_id, message.content_type, message.redelivered) == ("id-b'x'", "text/plain", False)
    assert message.mq_uri == QUEUE.uri
    assert message.headers == {
        "JobID": "1",
        "correlation-id": "c",
        "type": "t",
        "priority": "3",
        "persistent": "true",
        "reply-to": "m::Queues::other",
    }


# Queues.


async def test_what_nobody_takes_waits_in_order(site: Site) -> None:
    await site.put(b"1", b"2", b"3")
    assert (await site.consume()).bodies == [b"1", b"2", b"3"]


async def test_prefetch_bounds_what_is_out(site: Site) -> None:
    await site.put(b"1", b"2", b"3")
    worker = await site.consume(prefetch=1)
    assert worker.bodies == [b"1"]
    assert worker.subscription.ack(worker.deliveries[0])
    assert worker.bodies == [b"1", b"2"]


async def test_consumers_take_turns_and_one_without_credit_is_passed_over(site: Site) -> None:
    full = await site.consume(prefetch=1)
    one, two = await site.consume(), await site.consume()
    await site.put(*(b"%d" % number for number in range(7)))
    assert len(full.bodies) == 1
    assert sorted(full.bodies + one.bodies + two.bodies) == [b"%d" % number for number in range(7)]
    assert abs(len(one.bodies) - len(two.bodies)) <= 1


async def test_without_acknowledgement_a_message_is_gone_when_delivered(site: Site) -> None:
    worker = await site.consume(prefetch=1, acknowledge=False)
    await site.put(b"1", b"2")
    assert worker.bodies == [b"1", b"2"]
    assert not worker.subscription.ack(worker.deliveries[0])
    await worker.subscription.close(0)
    assert (await site.consume()).bodies == []


async def test_an_answer_counts_once(site: Site) -> None:
    worker = await site.consume()
    await site.put(b"1")
    (delivery,) = worker.deliveries
    assert worker.subscription.ack(delivery)
    assert not worker.subscription.ack(delivery)
    assert not worker.subscription.nack(delivery)
    assert worker.bodies == [b"1"]


async def test_a_nack_brings_it_again_and_marked(site: Site) -> None:
    worker = await site.consume(prefetch=1)
    await site.put(b"1", b"2")
    assert worker.subscription.nack(worker.deliveries[0])
    assert worker.bodies == [b"1", b"1"]
    assert [delivery.message.redelivered for delivery in worker.deliveries] == [False, True]
    assert worker.deliveries[0].token != worker.deliveries[1].token
    assert not worker.subscription.ack(worker.deliveries[0])
    assert worker.subscription.ack(worker.deliveries[1])
    assert worker.bodies == [b"1", b"1", b"2"]


async def test_an_ack_of_somebody_elses_delivery_does_nothing(site: Site) -> None:
    one, two = await site.consume(), await site.consume()
    await site.put(b"1")
    taken = one.deliveries or two.deliveries
    thief = two if one.deliveries else one
    assert not thief.subscription.ack(taken[0])


async def test_closing_gives_back_in_the_old_order(site: Site) -> None:
    leaver = await site.consume(prefetch=3)
    await site.put(b"1", b"2", b"3", b"4")
    assert leaver.subscription.ack(leaver.deliveries[1])
    assert leaver.bodies == [b"1", b"2", b"3", b"4"]
    await leaver.subscription.close(0)
    await leaver.subscription.close(0)
    heir = await site.consume()
    assert heir.bodies == [b"1", b"3", b"4"]
    assert all(delivery.message.redelivered for delivery in heir.deliveries)


async def test_a_consumer_that_left_gets_nothing(site: Site) -> None:
    leaver = await site.consume()
    await leaver.subscription.close(0)
    await site.put(b"1")
    assert leaver.bodies == []


async def test_a_listener_that_acks_at_once_does_not_go_deeper_with_every_message(site: Site) -> None:
    worker = await site.consume(prefetch=1)
    await site.put(*(b"%d" % number for number in range(3000)))
    worker.at_once = True
    assert worker.subscription.ack(worker.deliveries[0])
    assert worker.bodies == [b"%d" % number for number in range(3000)]


async def test_queues_are_apart(site: Site) -> None:
    worker = await site.consume(of=OTHER)
    await site.put(b"1")
    assert worker.bodies == []


# Time to live.


async def test_an_expired_message_is_not_delivered(site: Site, clock: Clock) -> None:
    await site.put(b"short", ttl_ms=1000)
    await site.put(b"long", ttl_ms=5000)
    await site.put(b"ever")
    clock.now += 1.0
    assert (await site.consume()).bodies == [b"long", b"ever"]


async def test_a_message_in_time_is_delivered(site: Site, clock: Clock) -> None:
    await site.put(b"short", ttl_ms=1000)
    clock.now += 0.999
    assert (await site.consume()).bodies == [b"short"]


async def test_an_expired_message_behind_a_waiting_one_is_found_in_its_turn(site: Site, clock: Clock) -> None:
    await site.put(b"ever")
    await site.put(b"short", ttl_ms=1000)
    await site.put(b"last")
    worker = await site.consume(prefetch=1)
    clock.now += 2
    worker.subscription.ack(worker.deliveries[0])
    assert worker.bodies == [b"ever", b"last"]


# Bounds.


async def test_as_many_messages_and_no_more_over_all_queues(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "MAX_MESSAGES", 3)
    await site.put(b"1", b"2")
    await site.put(b"3", to=OTHER)
    with pytest.raises(Overloaded) as caught:
        await site.put(b"4")
    assert caught.value.retry_after
    worker = await site.consume()
    with pytest.raises(Overloaded):  # delivered and not acked is still held
        await site.put(b"4")
    worker.subscription.ack(worker.deliveries[0])
    await site.put(b"4")
    assert worker.bodies == [b"1", b"2", b"4"]


@pytest.mark.parametrize("fields", [{"body": b"x" * 3000}, {"body": b"", "headers": {"a": "v" * 3000}}])
async def test_as_many_bytes_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    monkeypatch.setattr(memory_queue, "MAX_BYTES", 10_000)
    publication = Publication(message_id="1", **fields)
    for _ in range(2):
        await site.connector.publish(QUEUE, publication, timeout=0)
    with pytest.raises(Overloaded):
        await site.connector.publish(QUEUE, replace(publication, body=b"x" * 3500), timeout=0)


async def test_expired_messages_make_place(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "MAX_MESSAGES", 2)
    await site.put(b"1", ttl_ms=1000)
    await site.put(b"2", to=OTHER, ttl_ms=1000)
    with pytest.raises(Overloaded):
        await site.put(b"3")
    clock.now += 1
    await site.put(b"3", b"4")
    assert (await site.consume()).bodies == [b"3", b"4"]


async def test_redelivery_and_leaving_neither_win_nor_lose_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "MAX_MESSAGES", 2)
    await site.put(b"1", b"2")
    for _ in range(5):
        worker = await site.consume(prefetch=1)
        worker.subscription.nack(worker.deliveries[0])
        await worker.subscription.close(0)
    with pytest.raises(Overloaded):
        await site.put(b"3")
    await site.consume(acknowledge=False)
    await site.put(b"3", b"4", b"5")


async def test_names_without_end_leave_nothing_behind(site: Site, clock: Clock) -> None:
    settings: DestinationSettings = QueueSettings()
    for number in range(50):
        queue = Destination(MqUri.parse(f"m::Queues::q{number}"), settings)
        topic = Destination(MqUri.parse(f"m::Topics::t{number}"), settings)
        for destination in (queue, topic):
            worker = await site.consume(of=destination)
            await site.put(b"x", to=destination)
            if destination is queue:
                worker.subscription.ack(worker.deliveries[0])
            await worker.subscription.close(0)
    assert site.connector._queues == {}
    assert site.connector._topics == {}


# Topics.


async def test_a_topic_goes_to_everybody_who_listens_now(site: Site) -> None:
    await site.put(b"0", to=TOPIC)
    one = await site.consume(of=TOPIC, acknowledge=False)
    two = await site.consume(of=TOPIC, acknowledge=False)
    await site.put(b"1", to=TOPIC)
    await one.subscription.close(0)
    await one.subscription.close(0)
    await site.put(b"2", to=TOPIC)
    assert (one.bodies, two.bodies) == ([b"1"], [b"1", b"2"])
    assert not two.subscription.ack(two.deliveries[0])
    assert not two.subscription.nack(two.deliveries[0])


async def test_a_listener_may_leave_while_a_message_is_given_out(site: Site) -> None:
    class Leaver(Worker):
        def on_message(self, delivery: Delivery) -> None:
            super().on_message(delivery)
            site.connector._leave_topic(TOPIC.uri, self)

    leaver = await site.consume(of=TOPIC, worker=Leaver())
    stayer = await site.consume(of=TOPIC)
    await site.put(b"1", b"2", to=TOPIC)
    assert (leaver.bodies, stayer.bodies) == ([b"1"], [b"1", b"2"])


# A model: nothing is lost, nothing is given to two, the order holds.


@given(
    st.lists(st.sampled_from(["put", "join", "leave", "ack", "nack"]), max_size=60), st.randoms(use_true_random=False)
)
async def test_every_message_ends_exactly_once(steps: list[str], random: Any) -> None:
    site = Site()
    await site.connector.start()
    workers: list[Worker] = []
    left: list[Worker] = []
    acked: list[bytes] = []
    published = 0
    for step in steps:
        if step == "put":
            await site.put(b"%d" % published)
            published += 1
        elif step == "join":
            workers.append(await site.consume(prefetch=random.randint(1, 3)))
        elif workers and step == "leave":
            worker = workers.pop(random.randrange(len(workers)))
            await worker.subscription.close(0)
            left.append(worker)
        elif workers:
            worker = random.choice(workers)
            for delivery in list(worker.deliveries):
                if step == "ack" and worker.subscription.ack(delivery):
                    acked.append(delivery.message.body)
                elif step == "nack" and worker.subscription.nack(delivery):
                    break
    for worker in [*workers, *left]:
        assert not any(worker.subscription.ack(delivery) for delivery in worker.deliveries if worker in left)
        await worker.subscription.close(0)
    rest = (await site.consume(prefetch=1000)).bodies
    assert sorted(acked + rest) == sorted(b"%d" % number for number in range(published))


async def test_replies_in_a_transaction_are_answers_and_nothing_is_kept(site: Site) -> None:
    responder = await site.consume()
    asking = asyncio.ensure_future(site.connector.request(QUEUE, Publication(body=b"?", message_id="m-1"), timeout=5))
    await asyncio.sleep(0)
    (delivery,) = responder.deliveries
    assert responder.subscription.ack(delivery)
    asked = delivery.message.headers
    path = Destination(OTHER.uri, QueueSettings(destination=asked["reply-to"]))
    replies = [
        Publication(body=body, message_id=f"r-{number}", correlation_id=asked["correlation-id"])
        for number, body in enumerate((b"first", b"second"))
    ]
    await site.connector.publish_together(path, replies, timeout=5)
    reply = await asking
    assert (reply.body, reply.mq_uri) == (b"first", QUEUE.uri)
    assert site.connector.buffered == 0


# Durable subscriptions.


KEPT = Destination(MqUri.parse("m::Topics::alerts"), TopicSettings(subscriptions=["archiver", "mailer"]))


def of(name: str) -> Destination:
    return replace(KEPT, subscription=name)


async def test_each_subscription_keeps_its_own_copy_for_whoever_comes(site: Site) -> None:
    listener = await site.consume(of=KEPT, acknowledge=False)
    await site.put(b"1", b"2", to=KEPT)
    one, other = await site.consume(of=of("archiver")), await site.consume(of=of("mailer"))
    assert one.bodies == other.bodies == listener.bodies == [b"1", b"2"]
    assert one.subscription.ack(one.deliveries[0])
    await one.subscription.close(0)
    again = await site.consume(of=of("archiver"))
    assert again.bodies == [b"2"]
    assert again.deliveries[0].message.redelivered
    assert not other.deliveries[1].message.redelivered


async def test_where_one_copy_has_no_place_nobody_gets_any(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_queue, "MAX_MESSAGES", 3)
    listener = await site.consume(of=KEPT, acknowledge=False)
    await site.put(b"1", to=KEPT)
    with pytest.raises(Overloaded):
        await site.put(b"2", to=KEPT)
    assert listener.bodies == [b"1"]
    assert (await site.consume(of=of("archiver"))).bodies == [b"1"]


async def test_a_subscription_that_is_taken_away_leaves_nothing(site: Site) -> None:
    await site.put(b"1", b"2", to=KEPT)
    worker = await site.consume(of=of("archiver"), prefetch=1)
    topics = {"alerts": {"subscriptions": ["mailer"]}}
    assert site.connector.reconfigure(ServiceSettings.model_validate({"mq_type": "Memory", "topics": topics}))
    await worker.subscription.close(0)
    assert (await site.consume(of=of("mailer"))).bodies == [b"1", b"2"]
    assert site.connector._room._messages == 2
    assert site.connector.reconfigure(ServiceSettings.model_validate({"mq_type": "Memory"}))
    assert site.connector._queues == {}


async def test_a_batch_goes_on_after_a_reload_that_removed_its_topic_and_fills_nothing(site: Site) -> None:
    listener = await site.consume(of=KEPT, acknowledge=False)
    assert site.connector.reconfigure(ServiceSettings.model_validate({"mq_type": "Memory"}))
    await site.put(b"1", to=KEPT)
    assert (site.connector.buffered, site.connector._queues, listener.bodies) == (0, {}, [b"1"])


async def test_a_batch_that_began_before_a_reload_is_kept_as_the_configuration_is_now(site: Site) -> None:
    topics = {"alerts": {"subscriptions": ["mailer"]}}
    assert site.connector.reconfigure(ServiceSettings.model_validate({"mq_type": "Memory", "topics": topics}))
    await site.put(b"1", to=KEPT)
    assert (await site.consume(of=of("mailer"))).bodies == [b"1"]
    assert site.connector._room._messages == 1
