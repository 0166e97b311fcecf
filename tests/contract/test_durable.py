"""Durable subscriptions of Topics, on every kind of connector that keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.connectors.base import Destination
from app.domain.errors import NotSupportedByBroker
from app.gateway.leases import Lease
from tests.brokers.fixtures import Unique
from tests.contract.conftest import WAIT, Site, open_site, service_settings
from tests.contract.test_connectors import consume, publish
from tests.contract.test_leases import Workers, bodies, employed


@pytest.fixture(
    params=[
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq split", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
        pytest.param("activemq split", marks=pytest.mark.activemq),
        pytest.param("activemq client", marks=pytest.mark.activemq),
    ]
)
async def durable(request: pytest.FixtureRequest, unique: Unique) -> AsyncIterator[tuple[Site, Destination]]:
    """A site and the subscription `archiver` of a Topic there, which stands before the test begins."""
    kind, _, way = request.param.partition(" ")
    name = unique("VirtualTopic.alerts" if kind == "activemq" and way != "client" else "alerts")
    more = {"client_id": unique("gateway")} if way == "client" else {}
    topics = {name: {"subscriptions": ["archiver", "mailer"]}}
    base = request.param if way != "client" else kind
    site = await open_site(kind, service_settings(base, request, topics=topics, **more), unique)
    plain = site.topic()
    uri = replace(plain.uri, name=name)
    yield site, Destination(uri, site.connector.settings.topics[name], "archiver")
    await site.connector.close(WAIT)


def topic_of(kept: Destination) -> Destination:
    return replace(kept, subscription=None)


async def test_what_is_published_before_any_worker_is_there_for_each_subscription(
    durable: tuple[Site, Destination],
) -> None:
    site, kept = durable
    await publish(site, topic_of(kept), b"1", b"2", b"3")
    for name in ("archiver", "mailer"):
        recorder, subscription = await consume(site, replace(kept, subscription=name))
        for body in (b"1", b"2", b"3"):
            delivery = await recorder.next()
            assert delivery.message.body == body
            assert delivery.message.mq_uri == kept.uri
            assert not delivery.message.redelivered
            assert subscription.ack(delivery)
        await recorder.nothing()
        await subscription.close(WAIT)


async def test_a_topics_own_subscribers_get_it_too(durable: tuple[Site, Destination]) -> None:
    site, kept = durable
    recorder, subscription = await consume(site, topic_of(kept))
    await publish(site, topic_of(kept), b"1")
    assert (await recorder.next()).message.body == b"1"
    await subscription.close(WAIT)


async def test_workers_share_one_and_what_is_acked_is_gone(durable: tuple[Site, Destination]) -> None:
    site, kept = durable
    sent = [b"%02d" % number for number in range(12)]
    async with employed(site) as crew:
        workers = Workers(site, crew.takings, kept)
        await publish(site, topic_of(kept), *sent)
        found: list[bytes] = []
        while len(found) < len(sent):
            leases = await workers.take(4)
            found += bodies(leases)
            assert set(answer(workers, leases)) == {"done"}
        assert sorted(found) == sent
        assert await workers.take(4, wait=0.5) == []


async def test_what_is_given_back_comes_again(durable: tuple[Site, Destination]) -> None:
    site, kept = durable
    async with employed(site) as crew:
        workers = Workers(site, crew.takings, kept)
        await publish(site, topic_of(kept), b"1")
        (lease,) = await workers.take()
        token = workers.takings.token(lease)
        assert workers.takings.nack(kept.uri, token, "archiver", requeue=True, delay=0) == "done"
        (again,) = await workers.take()
        # ActiveMQ does not count what its own durable subscriptions had out.
        assert again.delivery.message.redelivered is (site.connector.settings.client_id is None)
        assert answer(workers, [again]) == ["done"]


async def test_another_gateway_finds_what_waits(durable: tuple[Site, Destination], unique: Unique) -> None:
    """Over a restart: nothing is lost, nothing is marked as delivered, and order is kept."""
    site, kept = durable
    if site.connector.service == "memory":
        return  # it ends with its process
    await publish(site, topic_of(kept), b"1", b"2")
    await site.connector.close(WAIT)
    other = await open_site(site.connector.service, site.connector.settings, unique)
    await publish(other, topic_of(kept), b"3")
    recorder, subscription = await consume(other, kept)
    for body in (b"1", b"2", b"3"):
        delivery = await recorder.next()
        assert (delivery.message.body, delivery.message.redelivered) == (body, False)
        assert subscription.ack(delivery)
    await subscription.close(WAIT)
    await other.connector.close(WAIT)


async def test_declaring_again_disturbs_nobody(durable: tuple[Site, Destination]) -> None:
    site, kept = durable
    await publish(site, topic_of(kept), b"1", b"2")
    before = site.connector.status.epoch
    topics = {**site.connector.settings.topics, f"{kept.uri.name}-more": kept.settings}
    assert site.connector.reconfigure(site.connector.settings.model_copy(update={"topics": topics}))
    await publish(site, topic_of(kept), b"3")
    recorder, subscription = await consume(site, kept)
    found = [await recorder.next() for _ in range(3)]
    assert [(each.message.body, each.message.redelivered) for each in found] == [
        (b"1", False),
        (b"2", False),
        (b"3", False),
    ]
    await subscription.close(WAIT)
    assert site.connector.status.epoch == before


@pytest.mark.activemq
@pytest.mark.parametrize("site", [pytest.param("activemq", marks=pytest.mark.activemq)], indirect=True)
async def test_activemq_without_a_client_id_says_so(site: Site) -> None:
    topic = site.topic(subscriptions=["archiver"])
    with pytest.raises(NotSupportedByBroker, match="client_id"):
        await publish(site, topic, b"1")
    with pytest.raises(NotSupportedByBroker, match="client_id"):
        await consume(site, replace(topic, subscription="archiver"))


def answer(workers: Workers, leases: list[Lease]) -> list[str]:
    takings = workers.takings
    return [takings.ack(lease.mq_uri, takings.token(lease), "archiver") for lease in leases]
