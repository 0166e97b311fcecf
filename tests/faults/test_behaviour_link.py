"""Behaviours of the link that no real broker shows on demand, by their numbers in docs/conformance.md."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time

import pytest

from app.connectors.stomp import addresses
from app.connectors.stomp.addresses import Address
from app.domain.errors import ConnectionLost
from app.domain.link import LinkFault, LinkState
from tests.brokers.process import LOOPBACK
from tests.brokers.tls import Authority
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject
from tests.faults.peer import Script, ScriptedPeer

BEATING = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "200,200"}


async def test_behaviour_08_failed_attempts_are_spaced_by_the_formula_and_jitter(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconnect = {"initial": 0.2, "increase": 0.5, "max": 0.4, "jitter": 0.2}
    plain = [0.2, 0.3, 0.4, 0.4, 0.4]
    chance = itertools.cycle([0.0, 1.0])  # the least and the most of the jitter, in turn
    monkeypatch.setattr("random.random", lambda: next(chance))
    async with ScriptedPeer.listen() as peer, subject(peer.address, reconnect=reconnect) as it:
        await peer.shut()
        shares: list[float] = []
        for number, wait in enumerate(plain, 1):
            await it.until(lambda count=number: it.states.count(LinkState.DOWN) == count)  # type: ignore[misc]
            at = it.connector.status.next_attempt_at
            assert at is not None
            shares.append((at - time.time()) / wait)
        # The pause has begun when it is looked at: a little below is right, above never.
        assert all(0.8 < share <= 1.0 for share in shares[::2]), shares
        assert all(1.0 < share <= 1.2 for share in shares[1::2]), shares
        # Attempts and pauses alternate: no attempt was made that was not waited for.
        assert it.states.count(LinkState.CONNECTING) <= it.states.count(LinkState.DOWN) + 1
        await peer.open()
        await it.state(LinkState.UP)
        await it.put()


async def test_behaviour_08_a_broker_that_hangs_up_after_login_is_no_tight_loop(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, reconnect={"initial": 1, "max": 1}) as it:
        begun = time.monotonic()
        for number in range(1, 6):
            connection = await peer.connection(number)
            await it.until(lambda n=number: it.connector.status.epoch == n and it.states[-1] is LinkState.UP)  # type: ignore[misc]
            connection.close()
        await peer.connection(6)
        # At once after the first, then after pauses that double: five lives take seconds, not milliseconds.
        assert time.monotonic() - begun > 1.5


async def test_behaviour_13_the_default_virtual_host_is_sent(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address):
        assert (await peer.frame("CONNECT"))["host"] == "/"


async def test_behaviour_14_an_attempt_is_given_up_at_the_connect_deadline(subject: Connect) -> None:
    script = Script(connected=None)
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, up=False, connect_timeout=0.5) as it:
        await peer.frame("CONNECT")
        begun = time.monotonic()
        await it.state(LinkState.DOWN)
        assert 0.4 < time.monotonic() - begun < 1.5
        assert it.fault is LinkFault.TIMEOUT
        await (await peer.connection()).wait_ended(1)


async def test_behaviour_16_an_alias_is_looked_up_at_each_attempt(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedPeer.listen() as old, ScriptedPeer.listen() as new:
        port = old.port
        asked: list[str] = []

        async def look_up(name: str, _port: int) -> list[Address]:
            asked.append(name)
            return [Address(name, LOOPBACK, port)]

        monkeypatch.setattr(addresses, "lookup", look_up)
        async with subject("alias.example:61613") as it:
            assert it.connector.status.address == old.address
            port = new.port
            await old.shut()
            await it.until(lambda: it.connector.status.address == new.address)
            await it.state(LinkState.UP)
            await it.put()
            assert (new.count("SEND"), old.count("SEND")) == (1, 0)
            assert asked == ["alias.example"] * it.connector.status.epoch


async def test_behaviour_19_a_certificate_goes_without_login_and_passcode(
    subject: Connect, authority: Authority
) -> None:
    context = authority.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(str(authority.ca_file))
    client = authority.client("robot")
    tls = {
        "ca_file": str(authority.ca_file),
        "cert_file": str(client.cert_file),
        "key_file": str(client.key_file),
    }
    async with ScriptedPeer.listen(tls=context) as peer:
        async with subject(peer.address, user=None, password=None, tls=tls) as it:
            await it.put()
            assert set((await peer.frame("CONNECT")).headers) == {"accept-version", "host", "heart-beat"}
        async with subject(peer.address, up=False, user=None, password=None, tls={"ca_file": tls["ca_file"]}) as it:
            await it.until(lambda: it.fault is not None)
            assert peer.count("CONNECT") == 1, "the peer asks for a certificate"


@pytest.mark.parametrize("large", [False, True], ids=["idle", "large write blocked"])
async def test_behaviour_21_a_silent_peer_is_given_up_and_what_is_pending_is_unknown(
    subject: Connect, large: bool
) -> None:
    script = Script(connected=BEATING, receipts=False)
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, heartbeat_ms=[200, 200]) as it:
        connection = await peer.connection()
        pending = [it.putting(timeout=WAIT) for _ in range(5)]
        await peer.frames("SEND", 5)
        await connection.beat()
        connection.stop_reading()
        begun = time.monotonic()
        if large:
            pending.append(it.putting(bytes(8_000_000), timeout=WAIT))
            await it.full()
        results = await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 2)
        assert [type(result) for result in results] == [ConnectionLost] * len(pending)
        assert it.fault is LinkFault.HEARTBEAT
        # Two intervals, and half of one between two looks; the rest is for shared cores.
        assert 0.35 < time.monotonic() - begun < 0.5 + 0.5
        await second(peer, it)


async def second(peer: ScriptedPeer, it: Subject) -> None:
    """The second connection stands."""
    await peer.connection(2)
    await it.until(lambda: it.connector.status.epoch == 2 and it.connector.status.state is LinkState.UP)
