"""The harness itself: an ActiveMQ that starts, stops, pauses, dies and answers for the tests."""

from __future__ import annotations

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.fixtures import ConnectStomp, MakeActiveMQ, Unique
from tests.stomp_client import StompClosed, StompError


async def test_a_message_goes_through(activemq: ActiveMQ, stomp_client: ConnectStomp, unique: Unique) -> None:
    queue = unique("harness")
    client = await stomp_client(activemq)
    await client.send(f"/queue/{queue}", b"\0binary\xff", {"colour": "a:b"}, persistent="true")
    assert await activemq.depth(queue) == 1
    await client.subscribe(f"/queue/{queue}", ack="client-individual")
    headers, body = await client.next_message()
    assert (headers["colour"], body) == ("a:b", b"\0binary\xff")
    await client.ack(headers)
    assert await activemq.depth(queue) == 0
    await client.disconnect()


async def test_access(activemq: ActiveMQ, stomp_client: ConnectStomp) -> None:
    with pytest.raises(StompError, match="password is invalid"):
        await stomp_client(activemq, password="wrong")
    client = await stomp_client(activemq, user="limited", password="limited")
    await client.send("/queue/open.x", b"x")
    with pytest.raises(StompError, match="not authorized"):
        await client.send("/queue/closed.x", b"x")


async def test_the_shared_one_cannot_be_stopped(activemq: ActiveMQ) -> None:
    with pytest.raises(RuntimeError, match="shared"):
        await activemq.stop()


async def test_a_private_one_can_be_restarted_paused_and_killed(
    make_activemq: MakeActiveMQ, stomp_client: ConnectStomp
) -> None:
    broker = await make_activemq(users={"bob": "builder"})
    client = await stomp_client(broker, user="bob", password="builder")
    assert broker.connections() == 1
    await client.send("/queue/kept", b"kept", persistent="true")
    await broker.pause()
    with pytest.raises(TimeoutError):
        await stomp_client(broker, timeout=0.3)
    await broker.resume()
    await broker.restart()
    await client.closed()
    client = await stomp_client(broker)
    await client.subscribe("/queue/kept", ack="client-individual")
    assert await client.messages(1) == [b"kept"]
    await broker.kill()
    with pytest.raises(StompClosed):
        await client.next_message()
    assert not broker.running
