"""Producers and consumers as a Python API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from app.connectors.base import Destination
from app.domain.errors import BrokerUnavailable, ConnectionLost
from app.domain.message import Message, Publication, Published
from app.gateway import messengers
from app.gateway.messengers import Consumer, Producer
from tests.unit.gateway.fakes import FakeConnector, FakeSubscription, queue, topic, turns

# Producers.


class Press:
    """Stands in for Gateway.publish."""

    def __init__(self) -> None:
        self.asked: list[tuple[Destination, Publication, float]] = []

    async def __call__(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> Published:
        self.asked.append((destination, publication, timeout))
        return Published(
            message_id=publication.message_id,
            mq_uri=destination.uri,
            confirmed=confirm,
            persistent=publication.persistent,
        )


async def test_a_producer_publishes_what_it_is_given() -> None:
    press = Press()
    jobs = queue()
    published = await Producer(jobs, press).put(
        b"\xff", content_type="image/png", headers={"JobID": "1"}, persistent=False, timeout=2
    )
    ((destination, publication, timeout),) = press.asked
    assert (destination, timeout) == (jobs, 2)
    assert (publication.body, publication.content_type, publication.persistent) == (b"\xff", "image/png", False)
    assert publication.headers == {"JobID": "1"}
    assert published.message_id == publication.message_id
    assert published.confirmed


@pytest.mark.parametrize(
    ("destination", "persistent", "content_type"),
    [
        (queue(), True, "application/octet-stream"),
        (queue(persistent=False, default_content_type="text/plain"), False, "text/plain"),
        (topic(), False, "application/octet-stream"),
    ],
)
async def test_what_is_not_said_the_destination_says(
    destination: Destination, persistent: bool, content_type: str
) -> None:
    press = Press()
    await Producer(destination, press).put(b"")
    publication = press.asked[0][1]
    assert (publication.persistent, publication.content_type) == (persistent, content_type)
    assert publication.headers == {}


async def test_json_as_dirac_puts_it() -> None:
    press = Press()
    producer = Producer(queue(default_content_type="text/plain"), press)
    await producer.put_json({"JobID": 1, "é": None}, headers={"a": "b"})
    publication = press.asked[0][1]
    assert (publication.body, publication.content_type) == (b'{"JobID": 1, "\\u00e9": null}', "application/json")
    assert publication.headers == {"a": "b"}


async def test_every_message_has_an_id_of_its_own() -> None:
    press = Press()
    producer = Producer(queue(), press)
    ids = {(await producer.put(b"")).message_id for _ in range(10)}
    assert len(ids) == 10


# Consumers that are asked.


async def _open(destination: Destination, callback: Any = None) -> tuple[Consumer, FakeSubscription]:
    connector = FakeConnector()
    consumer = Consumer(destination, callback)
    await consumer.open(connector, 7)
    asked = connector.asked[0]
    assert (asked["acknowledge"], asked["prefetch"], asked["timeout"]) == (
        destination.uri.is_queue,
        destination.settings.prefetch,
        7,
    )
    return consumer, connector.latest


def _body(taken: Message | None) -> bytes | None:
    return None if taken is None else taken.body


async def test_get_acks_what_it_returns_and_nothing_else() -> None:
    consumer, subscription = await _open(queue())
    subscription.deliver(b"a", b"b")
    assert _body(await consumer.get()) == b"a"
    assert subscription.acked == ["1"]
    assert _body(await consumer.get(5)) == b"b"
    assert subscription.acked == ["1", "2"]


async def test_what_went_back_is_not_given_out() -> None:
    consumer, subscription = await _open(queue())
    subscription.deliver(b"a", b"bb", b"c")
    consumer.on_withdrawn("2")
    consumer.on_withdrawn("2")
    assert [_body(await consumer.get()) for _ in range(3)] == [b"a", b"c", None]
    assert subscription.acked == ["1", "3"]


async def test_get_of_nothing_is_none_and_at_once() -> None:
    consumer, subscription = await _open(queue())
    assert await consumer.get() is None
    assert await consumer.get(0.001) is None
    assert subscription.acked == []


async def test_get_waits_for_a_message() -> None:
    consumer, subscription = await _open(queue())
    task = asyncio.ensure_future(consumer.get(60))
    await turns()
    assert not task.done()
    subscription.deliver(b"a")
    assert _body(await task) == b"a"


async def test_two_that_wait_get_one_each() -> None:
    consumer, subscription = await _open(queue())
    tasks = [asyncio.ensure_future(consumer.get(60)) for _ in range(2)]
    await turns()
    subscription.deliver(b"a")
    await turns()
    assert sum(task.done() for task in tasks) == 1
    subscription.deliver(b"b")
    assert {_body(await task) for task in tasks} == {b"a", b"b"}


async def test_a_message_that_comes_with_the_deadline_is_not_lost() -> None:
    consumer, subscription = await _open(queue())
    task = asyncio.ensure_future(consumer.get(0))
    await asyncio.sleep(0)  # it waits, and its time is over with the next turn
    subscription.deliver(b"a")
    assert _body(await task) == b"a"
    assert subscription.acked == ["1"]


async def test_a_cancelled_get_takes_nothing() -> None:
    consumer, subscription = await _open(queue())
    task = asyncio.ensure_future(consumer.get(60))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    subscription.deliver(b"a")
    assert _body(await consumer.get()) == b"a"


async def test_waiting_costs_no_turns_of_the_loop() -> None:
    consumer, _subscription = await _open(queue())
    task = asyncio.ensure_future(consumer.get(60))
    await turns()
    calls = 0
    real = consumer._arrived.wait

    async def counted() -> bool:
        nonlocal calls
        calls += 1
        return await real()

    consumer._arrived.wait = counted  # type: ignore[method-assign,assignment]
    await turns(50)
    assert calls == 0
    task.cancel()
    await turns()


async def test_a_lost_link_takes_back_what_was_not_acked() -> None:
    consumer, subscription = await _open(queue())
    subscription.deliver(b"a")
    consumer.on_lost()
    consumer.on_restored()
    assert await consumer.get() is None
    assert subscription.acked == []


async def test_a_lost_link_keeps_what_a_topic_gave() -> None:
    consumer, subscription = await _open(topic())
    subscription.deliver(b"a")
    consumer.on_lost()
    assert _body(await consumer.get()) == b"a"


async def test_when_the_broker_ends_it_get_says_so_after_the_rest() -> None:
    consumer, subscription = await _open(queue())
    subscription.deliver(b"a")
    task = asyncio.ensure_future(consumer.get(60))
    consumer.on_cancelled("queue deleted")
    assert _body(await task) == b"a"
    with pytest.raises(ConnectionLost, match="queue deleted"):
        await consumer.get(60)


async def test_who_waits_is_told_that_the_broker_ended_it() -> None:
    consumer, _subscription = await _open(queue())
    task = asyncio.ensure_future(consumer.get(60))
    await turns()
    consumer.on_cancelled("queue deleted")
    with pytest.raises(ConnectionLost, match="queue deleted"):
        await task


async def test_closing_gives_the_rest_back_once() -> None:
    consumer, subscription = await _open(queue())
    async with consumer as entered:
        assert entered is consumer
        subscription.deliver(b"a")
    await consumer.close()
    assert subscription.closed == 1
    assert subscription.acked == []
    assert await consumer.get() is None


async def test_what_comes_after_closing_is_not_acked() -> None:
    consumer, subscription = await _open(queue())
    await consumer.close()
    subscription.deliver(b"late")
    await consumer.get()
    assert subscription.acked == []


async def test_a_refusal_reaches_the_caller() -> None:
    connector = FakeConnector()
    connector.refusals.append(BrokerUnavailable("down"))
    consumer = Consumer(queue(), None)
    with pytest.raises(BrokerUnavailable):
        await consumer.open(connector, 1)
    await consumer.close()


# Bounds.


async def test_a_topic_nobody_reads_keeps_the_newest_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Consumer, "MAX_WAITING", 3)
    consumer, subscription = await _open(topic())
    subscription.deliver(*(b"%d" % number for number in range(5)))
    assert consumer.missed == 2
    assert [_body(await consumer.get()) for _ in range(4)] == [b"2", b"3", b"4", None]


async def test_bytes_bound_it_too_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Consumer, "MAX_WAITING_BYTES", 100)
    consumer, subscription = await _open(topic())
    subscription.deliver(b"a" * 60, b"b" * 40)
    assert consumer.missed == 0
    subscription.deliver(b"c")
    assert consumer.missed == 1
    subscription.deliver(b"d" * 1000)
    assert consumer.missed == 3
    assert _body(await consumer.get()) == b"d" * 1000
    subscription.deliver(b"e" * 100)
    assert consumer.missed == 3


async def test_of_a_queue_nothing_is_pushed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Consumer, "MAX_WAITING", 1)
    monkeypatch.setattr(Consumer, "MAX_WAITING_BYTES", 1)
    consumer, subscription = await _open(queue())
    subscription.deliver(b"aa", b"bb", b"cc")
    assert consumer.missed == 0
    assert [_body(await consumer.get()) for _ in range(3)] == [b"aa", b"bb", b"cc"]


# Consumers with a callback.


class Worker:
    """A callback that can be held, and can fail."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failures: list[Exception] = []

    async def __call__(self, message: Message) -> None:
        self.seen.append(message.body)
        await self.go_on.wait()
        if self.failures:
            raise self.failures.pop(0)


async def test_with_acknowledgement_a_message_is_acked_after_the_callback() -> None:
    worker = Worker()
    worker.go_on.clear()
    consumer, subscription = await _open(queue(acknowledgement=True), worker)
    subscription.deliver(b"a", b"b")
    await turns()
    assert (worker.seen, subscription.acked) == ([b"a"], [])
    worker.go_on.set()
    await turns()
    assert (worker.seen, subscription.acked) == ([b"a", b"b"], ["1", "2"])
    await consumer.close()


async def test_without_it_on_arrival() -> None:
    worker = Worker()
    worker.go_on.clear()
    consumer, subscription = await _open(queue(), worker)
    subscription.deliver(b"a")
    await turns()
    assert (worker.seen, subscription.acked) == ([b"a"], ["1"])
    await consumer.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses take no time; the list has their lengths."""
    lengths: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        lengths.extend([seconds] if seconds else [])
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return lengths


async def test_a_callback_that_raises_gives_back_after_a_pause_and_goes_on(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    worker.failures.append(ValueError("bad job"))
    consumer, subscription = await _open(queue(acknowledgement=True), worker)
    subscription.deliver(b"a", b"b")
    await turns(10)
    assert (subscription.nacked, subscription.acked) == (["1"], ["2"])
    assert pauses == [messengers.GIVE_BACK_DELAY]
    assert "svc::Queues::jobs: the callback failed on m-1" in caplog.text
    assert "bad job" in caplog.text
    await consumer.close()


async def test_one_that_was_acked_on_arrival_is_not_given_back(pauses: list[float]) -> None:
    worker = Worker()
    worker.failures.append(ValueError("bad job"))
    consumer, subscription = await _open(queue(), worker)
    subscription.deliver(b"a", b"b")
    await turns(10)
    assert (subscription.nacked, subscription.acked, pauses) == ([], ["1", "2"], [])
    await consumer.close()


async def test_closing_ends_a_callback_and_gives_its_message_back() -> None:
    worker = Worker()
    worker.go_on.clear()
    consumer, subscription = await _open(queue(acknowledgement=True), worker)
    subscription.deliver(b"a")
    await turns()
    await consumer.close()
    assert (subscription.acked, subscription.nacked, subscription.closed) == ([], [], 1)
    worker.go_on.set()
    await turns()
    assert subscription.acked == []


async def _directly(closing: Coroutine[Any, Any, None]) -> None:
    await closing


async def _in_a_task(closing: Coroutine[Any, Any, None]) -> None:
    await asyncio.create_task(closing)


async def _with_a_deadline(closing: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait_for(closing, 5)


@pytest.mark.parametrize("way", [_directly, _in_a_task, _with_a_deadline])
async def test_a_callback_may_close_its_own_consumer(
    way: Callable[[Coroutine[Any, Any, None]], Awaitable[None]],
) -> None:
    seen: list[bytes] = []

    async def last(message: Message) -> None:
        seen.append(message.body)
        await way(consumer.close())

    connector = FakeConnector()
    consumer = Consumer(queue(acknowledgement=True), last)
    await consumer.open(connector, 5)
    connector.latest.deliver(b"a", b"b")
    worker = consumer._working
    assert worker is not None
    async with asyncio.timeout(5):
        await asyncio.wait([worker])
        await consumer.close()
    assert (seen, connector.latest.acked, connector.latest.closed) == ([b"a"], [], 1)


async def test_a_callback_whose_subscription_ends_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    consumer, _subscription = await _open(queue(), worker)
    await turns()
    with caplog.at_level(logging.ERROR):
        consumer.on_cancelled("queue deleted")
        await turns()
    assert "svc::Queues::jobs: nothing more comes" in caplog.text
    await consumer.close()
