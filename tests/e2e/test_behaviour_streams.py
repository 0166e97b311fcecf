"""Behaviours of subscriptions at real brokers, seen through HTTP, by their numbers in docs/conformance.md."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.connectors.base import Delivery
from app.domain.message import Publication
from tests.brokers.activemq import ActiveMQ
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.contract.conftest import WAIT, Recorder, open_site, service_settings
from tests.e2e.conftest import Target
from tests.e2e.http_client import Sse, ask, eventually, post
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.e2e.test_main_job_readers import unacked
from tests.faults.relay import Relay


async def test_behaviour_10_an_ack_from_before_a_reconnect_acks_no_strangers_message(
    rabbitmq: RabbitMQ, request: pytest.FixtureRequest, unique: Unique, stomp_client: ConnectStomp
) -> None:
    """RabbitMQ counts deliveries anew on each connection: the old ack would fit another message."""
    async with Relay.to(rabbitmq.port) as relay:
        settings = service_settings("rabbitmq", request).model_copy(update={"port": relay.port})
        site = await open_site("rabbitmq", settings, unique)
        try:
            queue = site.queue()
            recorder = Recorder()
            subscription = await site.connector.subscribe(queue, recorder, acknowledge=True, prefetch=1, timeout=WAIT)
            client = await stomp_client(rabbitmq)
            await client.send(f"/queue/{queue.uri.name}", b"ours")
            old = await recorder.next()
            relay.reset()
            again = await redelivered(recorder)
            assert (again.message.body, again.message.redelivered) == (b"ours", True)
            assert again.token.rpartition("@@")[2] == old.token.rpartition("@@")[2], "the same number, as on the first"
            assert again.token != old.token, "under another subscription"
            assert not subscription.ack(old)
            assert not subscription.nack(old)
            # Had one gone out, it would have been taken by the time a later request is answered.
            await site.connector.publish(site.queue(), Publication(body=b"x", message_id="id-1"), timeout=WAIT)
            assert await unacked(rabbitmq, queue.uri.name) == 1
            assert subscription.ack(again)

            async def free() -> bool:
                return await unacked(rabbitmq, queue.uri.name) == 0

            await eventually(free, "the true ack")
            assert relay.taken == 2
            await subscription.close(WAIT)
        finally:
            await site.connector.close(WAIT)


async def redelivered(recorder: Recorder) -> Delivery:
    """The first delivery after the link was lost and restored; it may come in the same read as the RECEIPT."""
    told: list[Delivery | str] = []
    async with asyncio.timeout(WAIT):
        while not ("restored" in told and any(isinstance(what, Delivery) for what in told)):
            told.append(await recorder.told.get())
    assert [what for what in told if isinstance(what, str)] == ["lost", "restored"]
    (delivery,) = (what for what in told if isinstance(what, Delivery))
    return delivery


HARD_VALUES = ["a:b\\c", "line\nend", "carriage\rreturn", "\\n is no line end", "both\r\n:\\"]


async def test_behaviour_23_hard_header_values_of_a_stomp_client_reach_a_reader(
    target: Target, stomp_client: ConnectStomp, unique: Unique
) -> None:
    topic = unique("values")
    client = await stomp_client(target.broker)
    async with await Sse.open(target.port, f"/mq/mq/Topics/{topic}/events?format=envelope") as stream:
        for value in HARD_VALUES:
            await client.send(f"/topic/{topic}", "x", {"colour": value, "after": "untouched"})
            event = await stream.next()
            assert event.name == "message"
            assert event.json["headers"]["colour"] == value
            assert event.json["headers"]["after"] == "untouched"


@pytest.mark.parametrize("character", ["\n", "\r", "\0"], ids=["LF", "CR", "NUL"])
async def test_behaviour_23_control_characters_from_http_are_refused_and_nothing_is_injected(
    target: Target, stomp_client: ConnectStomp, unique: Unique, character: str
) -> None:
    queue, stolen = unique("values"), unique("stolen")
    injected = f"x{character}{character}SEND{character}destination:/queue/{stolen}{character}{character}boo\0"
    got = await post(target.port, f"/mq/mq/Queues/{queue}", b"x", {"Mq-Headers": json.dumps({"colour": injected})})
    assert (got.status, got.code, got.outcome) == (400, "invalid_header", "not_sent")
    client = await stomp_client(target.broker)
    for name in (queue, stolen):
        await client.subscribe(f"/queue/{name}")
    await client.silence(0.2)


async def _refused(gateway: LiveGateway, path: str) -> None:
    """Both kinds of client get the problem and not the head of a stream."""

    async def told(accept: str) -> bool:
        got = await ask(gateway.port, "GET", path, None, {"Accept": accept})
        if (got.status, got.code) == (502, "broker_rejected"):
            return True
        # Asked again while RabbitMQ is closing the connection over the refusal before.
        assert b"broker_unavailable" in got.body, got
        return False

    for accept in ("*/*", "text/event-stream"):
        await eventually(partial(told, accept), "the refusal", 5)


async def _others_lose_nothing(gateway: LiveGateway, work: str, refused: str) -> None:
    """A stream with acks gets every message, published before, during and after the refusals."""
    async with await Sse.open(gateway.port, f"{work}/events?format=envelope") as stream:
        sent: list[str] = []

        async def publish(number: int) -> None:
            async def confirmed() -> bool:
                return (await post(gateway.port, work, b"%d" % number)).status == 200

            await eventually(confirmed, "a publish", 5)
            sent.append(str(number))

        await publish(0)
        publishing = asyncio.create_task(_many(publish))
        await _refused(gateway, refused)
        await publishing
        await publish(100)
        events = await stream.until(lambda event: event.json["body"] == "100")
        assert {event.json["body"] for event in events} == set(sent)


async def _many(publish: Any) -> None:
    for number in range(1, 30):
        await publish(number)


@pytest.mark.parametrize("kind", ["missing exchange", "missing queue", "not allowed"])
async def test_behaviour_32_a_refused_subscription_at_rabbitmq(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique, kind: str
) -> None:
    user, work = unique("user"), unique("work")
    await rabbitmq.add_user(user, "pw")
    await rabbitmq.set_permissions(user, configure=".*", write=".*", read="^(work-|amq.topic|stomp-sub).*")
    queues = {
        "missing exchange": {"destination": "/exchange/nobody-made-this/x"},
        "missing queue": {"declare": False},
        "not allowed": {},
    }
    service = stomp(rabbitmq, user=user, password="pw", queues={kind: queues[kind]})
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await gateway.until_up("mq")
        path = f"/mq/mq/Queues/{kind.replace(' ', '%20')}/events"
        await _others_lose_nothing(gateway, f"/mq/mq/Queues/{work}", path)


async def test_behaviour_32_a_refused_subscription_at_activemq(
    activemq: ActiveMQ, tmp_path: Path, unique: Unique
) -> None:
    service = stomp(activemq, user="limited", password="limited")
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await gateway.until_up("mq")
        before = gateway.broker_ports(activemq)
        work, secret = f"/mq/mq/Queues/{unique('open.work')}", f"/mq/mq/Queues/{unique('secret')}/events"
        await _others_lose_nothing(gateway, work, secret)
        assert gateway.broker_ports(activemq) == before


async def test_behaviour_33_a_queue_deleted_under_a_subscription(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    doomed, other, topic = unique("doomed"), unique("other"), unique("news")
    async with running(write_config(tmp_path, {"mq": stomp(rabbitmq)})) as gateway:
        await gateway.until_up("mq")
        before = gateway.broker_ports(rabbitmq)
        async with (
            await Sse.open(gateway.port, f"/mq/mq/Queues/{doomed}/events") as ended,
            await Sse.open(gateway.port, f"/mq/mq/Queues/{other}/events") as stream,
            await Sse.open(gateway.port, f"/mq/mq/Topics/{topic}/events") as news,
        ):
            await rabbitmq.ctl("delete_queue", doomed)
            assert await ended.rest() == []
            assert ended.parser.retry is not None
            for path, reader in ((f"/mq/mq/Queues/{other}", stream), (f"/mq/mq/Topics/{topic}", news)):
                assert (await post(gateway.port, path, b"untouched")).status == 200
                assert (await reader.next()).data == "untouched"
            assert gateway.broker_ports(rabbitmq) == before

            # Who wants it again gets a new queue, on a connection that does not take the old one for granted: RabbitMQ
            # would confirm and lose what is published there, and end the connection at a SUBSCRIBE.
            assert (await post(gateway.port, f"/mq/mq/Queues/{doomed}", b"kept")).status == 200
            assert (await rabbitmq.queues())[doomed] == 1
            renewed = gateway.broker_ports(rabbitmq)
            assert renewed != before
            again = await Sse.open(gateway.port, f"/mq/mq/Queues/{doomed}/events")
            assert (await again.next()).data == "kept"
            assert (gap := await news.next()).name == "gap"
            assert gap.json["reason"] == "link_lost"
            assert gateway.broker_ports(rabbitmq) == renewed
            for path, reader in ((f"/mq/mq/Queues/{doomed}", again), (f"/mq/mq/Queues/{other}", stream)):
                assert (await post(gateway.port, path, b"again")).status == 200
                assert (await reader.next()).data == "again"
