"""The scripted peer itself, asked by the plain client."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers.fixtures import ConnectStomp
from tests.brokers.tls import Authority
from tests.faults.peer import Script, ScriptedPeer
from tests.stomp_client import StompClosed, StompError
from tests.stomp_frames import Frame


async def test_it_behaves_by_default(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    client = await stomp_client(scripted_peer.address)
    assert client.connected["server"] == "scripted/1.0"
    await client.send("/queue/a", b"one", {"colour": "a:b"})
    subscription = await client.subscribe("/queue/a")
    connection = await scripted_peer.connection()
    await connection.message(subscription, b"\0", ack="7")
    headers, body = await client.next_message()
    assert (headers["ack"], body) == ("7", b"\0")
    frame = await scripted_peer.frame("SEND")
    assert (frame["colour"], frame.body) == ("a:b", b"one")
    await scripted_peer.none("SEND", 0.05)
    await client.disconnect()
    await connection.wait_ended()
    assert [frame.command for frame in connection.received] == ["CONNECT", "SEND", "SUBSCRIBE", "DISCONNECT"]


async def test_it_can_be_silent_and_refuse(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    scripted_peer.script.connected = None
    with pytest.raises(TimeoutError):
        await stomp_client(scripted_peer.address, timeout=0.1)
    scripted_peer.script.refusal = Frame("ERROR", {"message": "Bad CONNECT"})
    with pytest.raises(StompError, match="Bad CONNECT"):
        await stomp_client(scripted_peer.address)
    assert scripted_peer.count("CONNECT") == 2


async def test_it_holds_and_reorders_receipts(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    scripted_peer.script.receipts = False
    client = await stomp_client(scripted_peer.address)
    for name in "abc":
        await client.send_frame("SEND", {"destination": "/queue/a", "receipt": name})
    connection, _ = await scripted_peer.frame_from("SEND", where=lambda frame: frame["receipt"] == "c")
    assert connection.held == ["a", "b", "c"]
    await connection.release("b")
    await connection.release()
    order = [(await client.wait_for(lambda frame: frame.command == "RECEIPT"))["receipt-id"] for _ in "abc"]
    assert order == ["b", "a", "c"]


async def test_it_stops_reading(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    client = await stomp_client(scripted_peer.address)
    connection = await scripted_peer.connection()
    connection.stop_reading()
    client.timeout = 0.2
    big = b"x" * (16 << 20)
    with pytest.raises(TimeoutError):
        await client.send("/queue/a", big)
    connection.resume_reading()
    assert (await scripted_peer.frame("SEND")).body == big


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_it_ends_connections(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp, end: str) -> None:
    client = await stomp_client(scripted_peer.address)
    connection = await scripted_peer.connection()
    getattr(connection, end)()
    with pytest.raises(StompClosed):
        await client.next_message()
    await connection.wait_ended()


async def test_it_half_closes(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    client = await stomp_client(scripted_peer.address)
    (await scripted_peer.connection()).half_close()
    assert await client.closed() == []
    await client.send_frame("SEND", {"destination": "/queue/late"})
    assert (await scripted_peer.frame("SEND"))["destination"] == "/queue/late"


async def test_it_goes_and_comes_back(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    client = await stomp_client(scripted_peer.address)
    await scripted_peer.shut()
    assert await client.closed() == []
    with pytest.raises(ConnectionRefusedError):
        await stomp_client(scripted_peer.address)
    await scripted_peer.open()
    again = await stomp_client(scripted_peer.address)
    await (await scripted_peer.connection(2)).beat()
    await again.send("/queue/a")


async def test_it_speaks_tls(stomp_client: ConnectStomp, authority: Authority) -> None:
    async with ScriptedPeer.listen(Script(), tls=authority.server_context()) as peer:
        client = await stomp_client(peer.address, tls=authority.client_context())
        await client.send("/queue/a", b"x")
        connection = await peer.connection()
        await client.send_bytes(b"\n\n")
        connection.reset()
        assert await client.closed() == []
        assert connection.beats in {0, 2}


async def test_nonsense_reaches_the_client(scripted_peer: ScriptedPeer, stomp_client: ConnectStomp) -> None:
    client = await stomp_client(scripted_peer.address)
    connection = await scripted_peer.connection()
    await connection.send_bytes(b"MESSAGE\nno colon\n\n\0")
    with pytest.raises(ValueError, match="without a colon"):
        await client.next_message()


async def test_a_wait_has_a_deadline(scripted_peer: ScriptedPeer) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(TimeoutError):
            await scripted_peer.connection(timeout=0.05)
