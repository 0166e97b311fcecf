"""The façade: what goes to the wire is checked here, and everything ends in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.config.errors import ConfigError
from app.domain.errors import (
    BadRequest,
    BrokerUnavailable,
    Draining,
    InvalidHeader,
    InvalidName,
    Overloaded,
    UnknownDestination,
    UnknownService,
)
from app.domain.link import LinkState
from app.domain.message import Message
from app.domain.uri import MqUri
from app.gateway import closing, counters, registry
from app.gateway import gateway as module
from app.gateway.gateway import Gateway
from app.gateway.stream import StreamRequest
from app.server import LIFESPAN_SECONDS
from app.telemetry.metrics import Metrics
from tests.unit.gateway.facade import JOBS, SERVICES, connector_of, destination_of, publication, settings_of
from tests.unit.gateway.fakes import FakeConnector, Timers, turns
from tests.unit.wire.event_source import EventSource

# Publishing.


async def test_a_publish_says_what_became_of_it(gateway: Gateway) -> None:
    destination = destination_of(gateway)
    published = await gateway.publish(destination, publication(persistent=True), timeout=1)
    assert (published.message_id, published.mq_uri) == ("m-1", destination.uri)
    assert (published.confirmed, published.persistent) == (True, True)
    unconfirmed = await gateway.publish(destination, publication(), timeout=1, confirm=False)
    assert (unconfirmed.confirmed, unconfirmed.persistent) == (False, False)
    assert gateway.destination_view(destination).published == 2


@pytest.mark.usefixtures("fake")
async def test_a_failed_publish_is_not_counted_and_holds_nothing() -> None:
    async with Gateway(settings_of()) as gateway:
        connector_of(gateway).refusals.append(BrokerUnavailable("down"))
        with pytest.raises(BrokerUnavailable):
            await gateway.publish(destination_of(gateway), publication(), timeout=1)
        assert gateway.destination_view(destination_of(gateway)).published == 0
        assert gateway.budget.reserved == 0


@pytest.mark.usefixtures("fake")
async def test_bodies_and_headers_on_their_way_are_bounded_together() -> None:
    async with Gateway(settings_of(memory_bytes=1 << 20, body_bytes=1 << 30)) as gateway:
        destination = destination_of(gateway)
        connector_of(gateway).open.clear()
        first = publication(b"x" * ((1 << 20) - 4000), headers={"a": "v" * 3000})
        task = asyncio.ensure_future(gateway.publish(destination, first, timeout=1))
        await turns()
        with pytest.raises(Overloaded):
            await gateway.publish(destination, publication(b"x" * 1000), timeout=1)
        connector_of(gateway).open.set()
        await task
        await gateway.publish(destination, publication(b"x" * 1000), timeout=1)


async def test_full_rings_give_way_to_publishes_and_their_readers_are_told() -> None:
    async with Gateway(settings_of(memory_bytes=1 << 20)) as gateway:
        status = destination_of(gateway, "svc::Topics::status")
        reader = await gateway.open_stream(status, StreamRequest(), timeout=1)
        for _ in range(8):
            await gateway.publish(status, publication(b"x" * 120_000), timeout=1)
        gateway.budget._count()
        await gateway.publish(destination_of(gateway), publication(b"x" * 500_000), timeout=1)
        (gap, *_rest) = EventSource.read(reader.take(1).data).events
        assert gap.type == "gap"


async def test_the_view_lists_the_last_used_and_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MAX_LISTED", 2)
    services = {"open": {**SERVICES["open"], "queues": {"declared": {}}}}
    async with Gateway(settings_of(services)) as gateway:
        for name in ("a", "b", "c", "a"):
            destination = destination_of(gateway, f"open::Queues::{name}")
            await gateway.publish(destination, publication(), timeout=1)
        view = gateway.service("open")
        listed = [(shown.mq_uri.rpartition(":")[2], shown.published) for shown in view.destinations]
        assert listed == [("declared", 0), ("a", 2), ("c", 1)]
        assert view.destinations_omitted == 1
        assert gateway.destination_view(destination_of(gateway, "open::Queues::b")).published == 1


@pytest.mark.usefixtures("fake")
async def test_a_name_of_which_nothing_came_is_not_listed() -> None:
    async with Gateway(settings_of()) as gateway:
        for kind in ("Queues", "Topics"):
            destination = destination_of(gateway, f"open::{kind}::refused")
            connector_of(gateway, "open").refusals += [BrokerUnavailable("down")] * 2
            with pytest.raises(BrokerUnavailable):
                await gateway.open_stream(destination, StreamRequest(), timeout=1)
            with pytest.raises(BrokerUnavailable):
                await gateway.publish(destination, publication(), timeout=1)
        assert gateway.service("open").destinations == []


@pytest.mark.usefixtures("fake")
async def test_what_comes_from_brokers_is_bounded_though_nobody_publishes_here() -> None:
    async with Gateway(settings_of({"open": SERVICES["open"]}, memory_bytes=1 << 20)) as gateway:
        most = 0
        for number in range(5):
            status = destination_of(gateway, f"open::Topics::t{number}")
            await gateway.open_stream(status, StreamRequest(), timeout=1)
            for _ in range(100):
                connector_of(gateway, "open").latest.deliver(b"x" * 10_000)
                most = max(most, gateway._streams.buffered())
        assert (1 << 20) // 2 < most < (1 << 20) + (1 << 16) + 20_000


@pytest.mark.usefixtures("fake")
async def test_what_is_encoded_for_readers_is_bounded_too() -> None:
    async with Gateway(settings_of({"open": SERVICES["open"]}, memory_bytes=1 << 20)) as gateway:
        reader = await gateway.open_stream(destination_of(gateway, "open::Topics::t"), StreamRequest(), timeout=1)
        connector_of(gateway, "open").latest.deliver(*[b"\n" * 1000] * 500)  # seven times as much when encoded
        events = 0
        while (batch := reader.take()).events:
            events += batch.events
            assert gateway._streams.buffered() < (1 << 20) + (1 << 16) + 20_000
        assert events > 100


# Streams.


async def test_a_stream_gets_what_is_published(gateway: Gateway) -> None:
    status = destination_of(gateway, "svc::Topics::status")
    reader = await gateway.open_stream(status, StreamRequest(), timeout=1)
    await gateway.publish(status, publication(b"hello"), timeout=1)
    await reader.ready()
    batch = reader.take()
    reader.handed_over(batch)
    assert EventSource.read(batch.data).events[0].data == "hello"
    view = gateway.destination_view(status)
    assert (view.readers, view.published, view.delivered) == (1, 1, 1)


async def test_what_is_kept_is_there_before_the_first_reader(gateway: Gateway) -> None:
    await turns()
    kept = destination_of(gateway, "svc::Topics::kept")
    await gateway.publish(kept, publication(b"early"), timeout=1)
    reader = await gateway.open_stream(kept, StreamRequest(start="earliest"), timeout=1)
    assert EventSource.read(reader.take().data).events[0].data == "early"


async def test_buffers_are_a_metric(gateway: Gateway) -> None:
    await turns()
    await gateway.publish(destination_of(gateway, "svc::Topics::kept"), publication(b"x" * 1000), timeout=1)
    rows = gateway.metrics.render().decode().splitlines()
    (held,) = [row for row in rows if row.startswith('mq_gateway_buffer_bytes{service="svc"}')]
    assert float(held.split()[1]) > 1000


async def test_what_waits_for_a_taker_gives_way_first(gateway: Gateway) -> None:
    jobs = destination_of(gateway)
    for body in (b"1", b"parked"):
        await gateway.publish(jobs, publication(body), timeout=1)
    (lease,) = await gateway.take(jobs, most=1, seconds=60, wait=0)
    gateway.takings.encoded([lease])
    gateway.takings.leases.ack(jobs.uri, lease.number)
    assert gateway.takings.buffered("svc") == len(b"parked")
    assert b'mq_gateway_buffer_bytes{service="svc"} 6.0' in gateway.metrics.render()
    gateway._give_way(1)
    assert gateway.takings.buffered() == 0
    (again,) = await gateway.take(jobs, most=1, seconds=60, wait=5)
    assert again.delivery.message.redelivered


async def test_leases_end_with_the_configuration_they_are_from(gateway: Gateway) -> None:
    jobs = destination_of(gateway)
    await gateway.publish(jobs, publication(), timeout=1)
    (lease,) = await gateway.take(jobs, most=1, seconds=60, wait=0)
    assert gateway.destination_view(jobs).leases == 1
    queues = {"jobs": {"prefetch": 3}}
    await gateway.reload(settings_of({"svc": {"mq_type": "Memory", "queues": queues}}))
    assert gateway.takings.leases.ack(jobs.uri, lease.number) == "expired"
    (again,) = await gateway.take(destination_of(gateway), most=1, seconds=60, wait=5)
    assert again.delivery.message.redelivered
    await gateway.reload(settings_of({"other": {"mq_type": "Memory"}}))
    assert b'mq_gateway_leases{service="svc"}' not in gateway.metrics.render()


@pytest.mark.usefixtures("fake")
async def test_a_stream_is_told_of_its_link() -> None:
    async with Gateway(settings_of()) as gateway:
        status = destination_of(gateway, "svc::Topics::status")
        reader = await gateway.open_stream(status, StreamRequest(status=True), timeout=1)
        connector_of(gateway).enter(LinkState.CONNECTING)
        (event,) = EventSource.read(reader.take().data).events
        assert (event.type, event.data) == ("status", '{"service":"svc","link":"down"}')


# Producers and consumers.


async def test_dirac_s_two_calls(gateway: Gateway) -> None:
    producer = await gateway.create_producer(JOBS)
    async with await gateway.create_consumer("svc::queue::jobs") as consumer:
        await producer.put_json({"JobID": 1})
        taken = await consumer.get(5)
        assert taken is not None
        assert taken.body == b'{"JobID": 1}'
        assert taken.content_type == "application/json"


async def test_a_producer_goes_through_the_choke_point(gateway: Gateway) -> None:
    producer = await gateway.create_producer(JOBS)
    with pytest.raises(InvalidHeader):
        await producer.put(b"x", headers={"CC": "[]"})


@pytest.mark.parametrize(
    ("uri", "error"),
    [("svc::Queues", InvalidName), ("none::Queues::jobs", UnknownService), ("svc::Queues::none", UnknownDestination)],
)
async def test_what_does_not_exist(gateway: Gateway, uri: str, error: type[BadRequest]) -> None:
    with pytest.raises(error):
        await gateway.create_producer(uri)
    with pytest.raises(error):
        await gateway.create_consumer(uri)


async def test_a_consumer_ends_with_its_gateway() -> None:
    seen: list[bytes] = []

    async def callback(message: Message) -> None:
        seen.append(message.body)

    async with Gateway(settings_of()) as gateway:
        consumer = await gateway.create_consumer(JOBS, callback)
        await (await gateway.create_producer(JOBS)).put(b"a")
        await turns()
    assert seen == [b"a"]
    assert consumer._working is not None
    assert consumer._working.done()


# Looking.


async def test_services_by_name_with_what_is_declared_and_used(gateway: Gateway) -> None:
    await gateway.publish(destination_of(gateway, "open::Queues::new"), publication(), timeout=1)
    views = gateway.services()
    assert [view.service for view in views] == ["open", "svc"]
    assert [(view.mq_uri, view.published) for view in views[0].destinations] == [("open::Queues::new", 1)]
    assert {view.mq_uri for view in views[1].destinations} == {
        "svc::Queues::jobs",
        "svc::Queues::replies",
        "svc::Queues::raw",
        "svc::Topics::status",
        "svc::Topics::kept",
    }
    assert gateway.link_states() == {"svc": "up", "open": "up"}
    with pytest.raises(UnknownService):
        gateway.service("none")


@pytest.mark.usefixtures("fake")
async def test_a_name_the_broker_would_refuse_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connector_of: FakeConnector, uri: MqUri) -> None:
        raise InvalidName(str(uri))

    async with Gateway(settings_of()) as gateway:
        monkeypatch.setattr(FakeConnector, "check_name", refuse)
        assert len(gateway.service("svc").destinations) == 5


async def test_a_drain_begins_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", timers.call_later)
    await gateway.drain()
    waiting = timers.waiting
    await gateway.drain()
    assert timers.waiting == waiting
    assert len(waiting) == 1


@pytest.mark.usefixtures("fake")
async def test_ready_needs_every_required_service_once_and_no_drain() -> None:
    gateway = Gateway(settings_of())
    assert not gateway.ready()
    async with gateway:
        assert gateway.ready()
        await gateway.drain()
        assert not gateway.ready()


async def test_every_gateway_has_a_name_of_its_own_and_its_own_metrics() -> None:
    one, two = Gateway(settings_of()), Gateway(settings_of())
    assert one.instance != two.instance
    assert one.metrics is not two.metrics
    metrics = Metrics()
    assert Gateway(settings_of(), metrics).metrics is metrics
    assert one.started_at <= two.started_at


# Files.


async def test_from_files_as_the_command_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("services: {demo: {mq_type: Memory, queues: {jobs: {}}}}")
    async with Gateway.from_files(str(file)) as gateway:
        assert gateway.resolve(MqUri.parse("demo::Queues::jobs"))
    with pytest.raises(ConfigError):
        Gateway.from_files(tmp_path / "none.yaml")


# The end.


async def test_after_the_drain_began_there_is_no_new_work(gateway: Gateway) -> None:
    reader = await gateway.open_stream(destination_of(gateway), StreamRequest(), timeout=1)
    await gateway.drain()
    assert reader.take().end == "drain"
    with pytest.raises(Draining) as caught:
        await gateway.publish(destination_of(gateway), publication(), timeout=1)
    assert caught.value.retry_after
    with pytest.raises(Draining):
        await gateway.open_stream(destination_of(gateway), StreamRequest(), timeout=1)


@pytest.mark.usefixtures("fake")
async def test_a_stream_that_is_opened_while_the_drain_begins_ends_too() -> None:
    async with Gateway(settings_of()) as gateway:
        connector_of(gateway).open.clear()
        task = asyncio.ensure_future(gateway.open_stream(destination_of(gateway), StreamRequest(), timeout=1))
        await turns()
        await gateway.drain()
        connector_of(gateway).open.set()
        assert (await task).take().end == "drain"


@pytest.mark.usefixtures("fake")
async def test_the_end_gives_back_to_queues_and_then_closes_links_which_ends_topics() -> None:
    async with Gateway(settings_of()) as gateway:
        connector = connector_of(gateway)
        await gateway.open_stream(destination_of(gateway), StreamRequest(), timeout=1)
        await turns()
    closed = {
        str(asked["uri"]): taken.closed for asked, taken in zip(connector.asked, connector.subscriptions, strict=True)
    }
    assert closed == {"svc::Topics::kept": 0, JOBS: 1}
    assert connector.closed == 1
    with pytest.raises(Draining):
        await gateway.publish(destination_of(gateway), publication(), timeout=1)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadlines of the end in miniature."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.4)
    monkeypatch.setattr(module, "GIVE_BACK_SECONDS", 0.1)
    for where in (module, registry, closing):
        monkeypatch.setattr(where, "CUT_OFF_SECONDS", 0.05)


@pytest.mark.usefixtures("fake", "times")
async def test_the_end_comes_in_time_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    async def hang(connector_of: FakeConnector, timeout: float) -> None:
        given.append(timeout)
        await asyncio.Event().wait()

    async def callback(_message: Message) -> None:
        """Nothing to do."""

    monkeypatch.setattr(FakeConnector, "close", hang)
    loop = asyncio.get_running_loop()
    async with Gateway(settings_of()) as gateway:
        connector = connector_of(gateway)
        for destination in (JOBS, "svc::Queues::replies", "svc::Topics::status"):
            await gateway.open_stream(destination_of(gateway, destination), StreamRequest(), timeout=1)
        consumers = [await gateway.create_consumer(JOBS, callback) for _ in range(2)]
        for subscription in connector.subscriptions:
            subscription.closing.clear()
        begun = loop.time()
    assert loop.time() - begun < 0.4 + 0.2  # a busy machine
    assert len(consumers) == 2
    assert [subscription.closed for subscription in connector.subscriptions].count(1) == 4
    assert len(given) == 2
    assert min(given) > 0


def test_the_deadlines_of_the_end_fit_into_the_server_s() -> None:
    assert module.GIVE_BACK_SECONDS + 3 * closing.CUT_OFF_SECONDS < module.CLOSE_SECONDS / 1.5
    assert module.CLOSE_SECONDS <= LIFESPAN_SECONDS - 2
