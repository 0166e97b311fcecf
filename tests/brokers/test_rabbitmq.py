"""The harness itself: a RabbitMQ that starts, stops, pauses, dies and answers for the tests."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers.fixtures import ConnectStomp, MakeRabbitMQ, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.tls import Authority
from tests.stomp_client import StompClosed, StompError


async def test_a_message_goes_through(rabbitmq: RabbitMQ, stomp_client: ConnectStomp, unique: Unique) -> None:
    queue = unique("harness")
    client = await stomp_client(rabbitmq)
    await client.send(f"/queue/{queue}", b"\0binary\xff", {"colour": "a:b\\c\nd"}, persistent="true")
    assert (await rabbitmq.queues())[queue] == 1
    await client.subscribe(f"/queue/{queue}", ack="client-individual")
    headers, body = await client.next_message()
    assert (headers["colour"], body) == ("a:b\\c\nd", b"\0binary\xff")
    await client.ack(headers)
    assert (await rabbitmq.queues())[queue] == 0
    await client.disconnect()


async def test_the_shared_one_cannot_be_stopped(rabbitmq: RabbitMQ) -> None:
    for control in (rabbitmq.stop, rabbitmq.kill, rabbitmq.pause, rabbitmq.start):
        with pytest.raises(RuntimeError, match="shared"):
            await control()


async def test_many_ask_at_the_same_time(rabbitmq: RabbitMQ) -> None:
    assert await asyncio.gather(*(rabbitmq.eval(f"{n} + 1") for n in range(20))) == list(range(1, 21))


async def test_users_and_vhosts(rabbitmq: RabbitMQ, stomp_client: ConnectStomp, unique: Unique) -> None:
    user, vhost = unique("user"), unique("vhost")
    await rabbitmq.add_vhost(vhost)
    await rabbitmq.add_user(user, "secret")
    await rabbitmq.set_permissions(user, "^$", "^$", ".*", vhost=vhost)
    client = await stomp_client(rabbitmq, user=user, password="secret", vhost=vhost)
    with pytest.raises(StompError, match="access_refused"):
        await client.send("/queue/x", b"x")
    assert user in await rabbitmq.ctl("list_users")


async def test_wrong_password(rabbitmq: RabbitMQ, stomp_client: ConnectStomp) -> None:
    with pytest.raises(StompError, match="Bad CONNECT"):
        await stomp_client(rabbitmq, password="wrong")


async def test_tls(rabbitmq: RabbitMQ, stomp_client: ConnectStomp, authority: Authority, unique: Unique) -> None:
    client = await stomp_client(rabbitmq.tls_address, tls=authority.client_context(authority.client()))
    await client.send(f"/queue/{unique('tls')}", b"x")
    await client.disconnect()


async def test_a_private_one_can_be_restarted_paused_and_killed(
    make_rabbitmq: MakeRabbitMQ, stomp_client: ConnectStomp
) -> None:
    broker = await make_rabbitmq()
    client = await stomp_client(broker)
    assert broker.connections() == await broker.stomp_connections() == 1
    await client.send("/queue/kept", b"kept", persistent="true")
    await broker.pause()
    with pytest.raises(TimeoutError):
        await stomp_client(broker, timeout=0.3)
    await broker.resume()
    await client.send("/queue/kept", b"again", persistent="true")
    await broker.restart()
    assert await client.closed() == []
    client = await stomp_client(broker)
    await client.subscribe("/queue/kept", ack="client-individual")
    assert await client.messages(2) == [b"kept", b"again"]
    await broker.kill()
    with pytest.raises(StompClosed):
        await client.next_message()
    assert not broker.running


async def test_connections_can_be_closed_and_blocked(
    rabbitmq: RabbitMQ, make_rabbitmq: MakeRabbitMQ, stomp_client: ConnectStomp, unique: Unique
) -> None:
    broker = await make_rabbitmq()
    client = await stomp_client(broker)
    assert await broker.close_connections() == 1
    await client.closed()
    client = await stomp_client(broker)
    await broker.memory_alarm(on=True)
    await client.send("/queue/first", b"still taken")
    client.timeout = 0.5
    with pytest.raises(TimeoutError):
        await client.send("/queue/first", b"blocked")
    await broker.memory_alarm(on=False)
    await client.wait_for(lambda frame: frame.command == "RECEIPT", 10)
