"""Streams behind Topics, on every kind of connector: offsets mean the same, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.connectors.base import Destination, Subscription
from app.domain.errors import NotSupportedByBroker
from app.domain.stream import FIRST, LAST, NEXT, StreamStart, after
from tests.brokers.rabbitmq import RabbitMQ
from tests.contract.conftest import WAIT, Recorder, Site
from tests.contract.test_connectors import publication, publish

WITH_STREAMS = pytest.mark.parametrize(
    "site",
    [
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq split", marks=pytest.mark.rabbitmq),
    ],
    indirect=True,
)
WITHOUT_STREAMS = pytest.mark.parametrize(
    "site",
    [
        pytest.param("activemq", marks=pytest.mark.activemq),
        pytest.param("activemq split", marks=pytest.mark.activemq),
    ],
    indirect=True,
)


async def read(site: Site, topic: Destination, start: StreamStart, prefetch: int = 10) -> tuple[Recorder, Subscription]:
    recorder = Recorder()
    subscription = await site.connector.subscribe(
        topic, recorder, acknowledge=True, prefetch=prefetch, timeout=WAIT, start=start
    )
    return recorder, subscription


async def take(recorder: Recorder, subscription: Subscription, count: int) -> list[tuple[int | None, bytes]]:
    found = []
    for _ in range(count):
        delivery = await recorder.next()
        assert subscription.ack(delivery)
        assert delivery.missing is None
        found.append((delivery.offset, delivery.message.body))
    return found


@pytest.fixture
async def stream(site: Site) -> Destination:
    """A Topic with a stream, and messages 0 to 4 in it."""
    topic = site.topic(replay="stream")
    await publish(site, topic, *(b"%d" % number for number in range(5)))
    return topic


def messages(*numbers: int) -> list[tuple[int, bytes]]:
    return [(number, b"%d" % number) for number in numbers]


@WITHOUT_STREAMS
async def test_who_has_no_streams_says_so(site: Site) -> None:
    topic = site.topic(replay="stream")
    with pytest.raises(NotSupportedByBroker):
        await read(site, topic, FIRST)
    with pytest.raises(NotSupportedByBroker):
        await publish(site, topic, b"x")


@WITH_STREAMS
@pytest.mark.parametrize(
    ("start", "expected"),
    [(FIRST, [0, 1, 2, 3, 4, 5]), (after(-1), [0, 1, 2, 3, 4, 5]), (after(2), [3, 4, 5]), (NEXT, [5])],
    ids=["first", "before all", "after", "next"],
)
async def test_what_was_published_before_is_read_from_anywhere(
    site: Site, stream: Destination, start: StreamStart, expected: list[int]
) -> None:
    recorder, subscription = await read(site, stream, start)
    await publish(site, stream, b"5")
    assert await take(recorder, subscription, len(expected)) == messages(*expected)
    await recorder.nothing()
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_the_last_ones_tell_where_the_stream_stands(site: Site, stream: Destination) -> None:
    recorder, subscription = await read(site, stream, LAST)
    delivery = await recorder.next()
    assert subscription.ack(delivery)
    rest = range((delivery.offset or 0) + 1, 5)
    assert await take(recorder, subscription, len(rest)) == messages(*rest)
    await recorder.nothing()
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_a_time_begins_not_later_than_it_says(site: Site, stream: Destination) -> None:
    recorder, subscription = await read(site, stream, StreamStart("time", 1))
    assert await take(recorder, subscription, 5) == messages(0, 1, 2, 3, 4)
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_a_position_ahead_is_told_at_the_next_message_or_waited_for(site: Site, stream: Destination) -> None:
    """RabbitMQ 3.10.8 delivers nothing before the offset it was asked for, and says nothing either."""
    recorder, subscription = await read(site, stream, after(999))
    await recorder.nothing()
    await publish(site, stream, b"5")
    if site.connector.service.startswith("rabbitmq"):
        await recorder.nothing()
    else:
        delivery = await recorder.next()
        assert (delivery.offset, delivery.missing) == (5, "restart")
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_what_is_published_together_is_in_the_stream(site: Site, stream: Destination) -> None:
    await site.connector.publish_together(stream, [publication(b"5"), publication(b"6")], timeout=WAIT)
    recorder, subscription = await read(site, stream, after(3))
    assert await take(recorder, subscription, 3) == messages(4, 5, 6)
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_readers_do_not_disturb_each_other(site: Site, stream: Destination) -> None:
    readers = [await read(site, stream, after(number)) for number in range(4)]
    for number, (recorder, subscription) in enumerate(readers):
        assert await take(recorder, subscription, 4 - number) == messages(*range(number + 1, 5))
        await subscription.close(WAIT)


@WITH_STREAMS
async def test_an_ack_asks_for_more_and_nothing_goes_back(site: Site, stream: Destination) -> None:
    await publish(site, stream, *(b"%d" % number for number in range(5, 40)))
    recorder, subscription = await read(site, stream, FIRST, prefetch=2)
    first = await recorder.next()
    assert not subscription.nack(first)
    assert subscription.ack(first)
    assert await take(recorder, subscription, 39) == messages(*range(1, 40))
    await subscription.close(WAIT)
    again, subscription = await read(site, stream, FIRST)
    assert await take(again, subscription, 1) == messages(0)
    await subscription.close(WAIT)


@WITH_STREAMS
async def test_what_is_unacked_at_the_end_hurts_nobody(site: Site, stream: Destination) -> None:
    before: Any = site.connector.status.epoch
    for _ in range(3):
        recorder, subscription = await read(site, stream, FIRST, prefetch=3)
        await recorder.next()
        await subscription.close(WAIT)
    await publish(site, stream, b"5")
    assert site.connector.status.epoch == before


@pytest.mark.rabbitmq
@pytest.mark.parametrize("site", ["rabbitmq", "rabbitmq split"], indirect=True)
async def test_a_stream_that_somebody_deleted_is_made_anew(site: Site, stream: Destination, rabbitmq: RabbitMQ) -> None:
    before: Any = site.connector.status.epoch
    recorder, _ = await read(site, stream, LAST)
    await recorder.next()
    await rabbitmq.ctl("delete_queue", f"{stream.uri.name}-stream")
    assert "canceled" in await recorder.word()
    await publish(site, stream, b"anew")
    recorder, subscription = await read(site, stream, FIRST)
    assert await take(recorder, subscription, 1) == [(0, b"anew")]
    await subscription.close(WAIT)
    await rabbitmq.ctl("delete_queue", f"{stream.uri.name}-stream")
    recorder, subscription = await read(site, stream, FIRST)
    await publish(site, stream, b"again")
    assert await take(recorder, subscription, 1) == [(0, b"again")]
    await subscription.close(WAIT)
    assert site.connector.status.epoch == before
