"""The link: what it takes for a connection, how it notices the end of one, and how it comes back."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
from pathlib import Path

import pytest

from app.connectors.stomp import addresses
from app.domain.errors import ConnectionLost
from app.domain.link import LinkFault, LinkState
from tests.brokers.tls import Authority
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject
from tests.faults.peer import Script, ScriptedPeer
from tests.stomp_frames import Frame

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}


def refusal(message: str, body: bytes = b"") -> Script:
    return Script(refusal=Frame("ERROR", {"message": message}, body))


async def test_connect_says_who_we_are(subject: Connect) -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        subject(peer.address, vhost="/grid", heartbeat_ms=[4000, 6000], client_id="gw", password="p:ss") as it,
    ):
        headers = (await peer.frame("CONNECT")).headers
        assert headers == {
            "accept-version": "1.2",
            "host": "/grid",
            "login": "guest",
            "passcode": "p:ss",
            "heart-beat": "4000,6000",
            "client-id": "gw",
        }
        status = it.connector.status
        assert (status.broker, status.address, status.ever_up) == ("RabbitMQ/3.10.8", peer.address, True)


async def test_behaviour_19_without_a_login_none_is_sent(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, user=None, password=None):
        assert not {"login", "passcode"} & set((await peer.frame("CONNECT")).headers)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (refusal("Bad CONNECT", b"Access refused for user 'guest'"), LinkFault.AUTH_FAILED),
        (refusal("Bad CONNECT", b"Virtual host '/x' access denied"), LinkFault.VHOST_DENIED),
        (refusal("Version mismatch", b"Supported versions are 1.0"), LinkFault.VERSION),
        (Script(connected={"version": "1.1"}), LinkFault.VERSION),
        (Script(connected={"version": "1.2", "heart-beat": "a,b"}), LinkFault.PROTOCOL),
        (Script(connected=None), LinkFault.TIMEOUT),
    ],
    ids=["login", "vhost", "version refused", "version answered", "heart-beat", "silence"],
)
async def test_behaviour_12_13_14_a_refused_connect_has_its_reason(
    subject: Connect, script: Script, fault: LinkFault
) -> None:
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, up=False, connect_timeout=0.2) as it:
        await it.state(LinkState.DOWN)
        assert it.fault is fault
        error = it.connector.status.last_error
        assert error is not None
        assert "secret" not in error.detail
        await (await peer.connection()).wait_ended()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\n\n\0",
        b"CONNECTED\nversion:1.2\ncontent-length:1\n\nxx\0",
        b"x" * (1 << 20) + b"y" * 99,
    ],
    ids=["no STOMP", "wrong length", "endless header"],
)
async def test_what_is_not_stomp_ends_the_attempt(subject: Connect, data: bytes) -> None:
    async with ScriptedPeer.listen(Script(connected=None)) as peer, subject(peer.address, up=False) as it:
        await peer.frame("CONNECT")
        await (await peer.connection()).send_bytes(data)
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.PROTOCOL


async def test_behaviour_16_the_second_host_serves_when_the_first_is_down(subject: Connect) -> None:
    async with ScriptedPeer.listen() as gone:
        pass
    async with ScriptedPeer.listen() as peer, subject("", hosts=[gone.address, peer.address]) as it:
        assert it.connector.status.address == peer.address


async def test_a_name_that_does_not_resolve(subject: Connect) -> None:
    async with subject("no-such-host.invalid:61613", up=False) as it:
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.DNS


async def test_a_resolver_that_hangs_costs_only_this_link(subject: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_name: str, _port: int) -> list[addresses.Address]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(addresses, "lookup", hang)
    async with subject("anything:1", up=False, connect_timeout=0.1) as it:
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.DNS


async def test_behaviour_08_reconnects_at_once_then_with_growing_waits(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        for number in range(1, 4):
            (await peer.connection(number)).close()
            await it.until(lambda epoch=number + 1: it.connector.status.epoch == epoch)  # type: ignore[misc]
            await it.state(LinkState.UP)
        # The first came back without a wait, the later ones died young and had to wait.
        first_down = it.states.index(LinkState.DOWN)
        assert it.states[:first_down] == [LinkState.UP, LinkState.CONNECTING] * 2
        assert it.fault is LinkFault.CLOSED_BY_BROKER


async def test_behaviour_20_heart_beats_go_both_ways_on_every_connection(subject: Connect) -> None:
    script = Script(connected={**RABBIT, "heart-beat": "100,100"})
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, heartbeat_ms=[100, 100]) as it:
        for number in (1, 2, 3):
            connection = await peer.connection(number)
            await it.until(lambda epoch=number: up_in(it, epoch))  # type: ignore[misc]
            for _ in range(10):  # ten intervals: nobody gives up
                await asyncio.sleep(0.05)
                await connection.beat()
            assert connection.beats >= 5
            assert it.connector.status.epoch == number
            connection.close()
            await peer.connection(number + 1)


def up_in(it: Subject, epoch: int) -> bool:
    return it.connector.status.epoch == epoch and it.connector.status.state is LinkState.UP


@pytest.mark.parametrize(
    ("server", "least", "most"),
    [("RabbitMQ/3.10.8", 0.4, 0.8), ("ActiveMQ/5.17.2", 0.5, 0.9)],
    ids=["RabbitMQ", "ActiveMQ"],
)
async def test_behaviour_21_a_silent_broker_is_given_up_within_its_intervals(
    subject: Connect, server: str, least: float, most: float
) -> None:
    """Two; two and a half for ActiveMQ, which may be silent for two while all is well."""
    script = Script(connected={**RABBIT, "server": server, "heart-beat": "200,200"})
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, heartbeat_ms=[200, 200]) as it:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await it.until(lambda: it.fault is LinkFault.HEARTBEAT, 2)
        assert least <= loop.time() - began < most


async def test_behaviour_22_activemq_may_be_silent_for_two_intervals(subject: Connect) -> None:
    script = Script(connected={**RABBIT, "server": "ActiveMQ/5.17.2", "heart-beat": "600,600"})
    async with ScriptedPeer.listen(script) as peer, subject(peer.address, heartbeat_ms=[600, 600]) as it:
        connection = await peer.connection()
        for _ in range(2):
            await asyncio.sleep(1.25)  # the broker's second look, a little late
            await connection.beat()
        await it.put()
        assert (len(peer.connections), it.fault) == (1, None)


async def test_an_unknown_command_ends_the_connection(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await (await peer.connection()).send("SURPRISE")
        await it.until(lambda: it.fault is LinkFault.PROTOCOL)
        await it.until(lambda: it.connector.status.epoch == 2)


async def test_an_error_before_the_end_explains_it(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        connection = await peer.connection()
        await connection.send("ERROR", {"message": "consumer_timeout"}, b"too slow")
        connection.close()
        await it.until(lambda: it.fault is LinkFault.CLOSED_BY_BROKER)
        error = it.connector.status.last_error
        assert error is not None
        assert "consumer_timeout: too slow" in error.detail


async def test_frames_are_logged_without_credentials_on_request(
    subject: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DIRAC_DEBUG_STOMP", "")
    caplog.set_level("INFO", "mq_gateway.stomp.frames")
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await it.put(b"the body")
    assert "SEND" in caplog.text
    assert "RECEIPT" in caplog.text
    assert "secret" not in caplog.text
    assert "the body" not in caplog.text


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    server = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert_file, server.key_file)
    return context


async def test_behaviour_17_tls_is_verified(subject: Connect, authority: Authority, server_tls: ssl.SSLContext) -> None:
    async with ScriptedPeer.listen(tls=server_tls) as peer:
        async with subject(peer.address, tls={"ca_file": str(authority.ca_file)}) as it:
            await it.put(bytes(1_000_000))
        async with subject(peer.address, up=False, tls=True) as it:
            await it.state(LinkState.DOWN)
            assert it.fault is LinkFault.TLS_VERIFY
        async with subject(
            peer.address, up=False, tls={"ca_file": str(authority.ca_file), "server_name": "other.example"}
        ) as it:
            await it.state(LinkState.DOWN)
            assert it.fault is LinkFault.TLS_VERIFY
        async with subject(peer.address, tls={"verify": False}) as it:
            await it.put()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_behaviour_18_the_end_of_a_tls_connection_is_noticed(
    subject: Connect, authority: Authority, server_tls: ssl.SSLContext, how: str
) -> None:
    async with (
        ScriptedPeer.listen(tls=server_tls) as peer,
        subject(peer.address, tls={"ca_file": str(authority.ca_file)}) as it,
    ):
        getattr(await peer.connection(), how)()
        await it.until(lambda: it.connector.status.epoch == 2, 1)


async def test_certificate_files_are_read_for_each_connection(
    subject: Connect, authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    trusted, other = tmp_path / "ca.pem", Authority(tmp_path / "other")
    trusted.write_bytes(authority.ca_file.read_bytes())
    async with (
        ScriptedPeer.listen(tls=server_tls) as peer,
        subject(peer.address, tls={"ca_file": str(trusted)}) as it,
    ):
        trusted.write_bytes(other.ca_file.read_bytes())
        await it.put()
        (await peer.connection()).close()
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.TLS_VERIFY
        trusted.write_bytes(authority.ca_file.read_bytes())
        await it.state(LinkState.UP)


async def test_tls_against_a_plain_port(subject: Connect) -> None:
    async with (
        ScriptedPeer.listen(Script(connected=None)) as peer,
        subject(peer.address, up=False, tls={"verify": False}, connect_timeout=0.5) as it,
    ):
        await (await peer.connection()).send_bytes(b"ERROR\nmessage:what?\n\n\0")
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.TLS


async def test_closing_while_nothing_answers(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=None)) as peer, subject(peer.address, up=False) as it:
        await peer.frame("CONNECT")
        await asyncio.wait_for(it.connector.close(WAIT), 1)
        assert it.connector.status.state is LinkState.CLOSED


async def test_a_broker_that_ends_while_it_does_not_read_is_gone_at_once(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer, subject(peer.address) as it:
        connection = await peer.connection()
        connection.stop_reading()
        session = it.connector._publisher._link.current
        assert session is not None
        waiting = []
        while session.transport.buffered == 0:
            waiting.append(it.putting(bytes(500_000)))
            await asyncio.sleep(0.01)
        assert session.transport.is_writable, "so much may be on its way"
        connection.half_close()
        for each in waiting:
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(each, WAIT / 2)
        peer.script.receipts = True
        await it.put()
        assert len(peer.connections) == 2


async def test_a_link_that_is_renewed_again_and_again_is_never_down(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address) as it:
        for number in range(2, 6):
            it.connector._publisher._link.renew()
            await peer.connection(number)
            await it.state(LinkState.UP)
        assert LinkState.DOWN not in it.states
        assert len(peer.connections) == 5


async def test_a_broker_with_nagles_algorithm_is_not_kept_waiting(subject: Connect) -> None:
    """ActiveMQ is one. Unacknowledged bytes hold back the next ones, 40 ms each time."""
    seconds = []
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        connection = await peer.connection()
        connection.delay_small_writes()
        for _ in range(40):
            begun = time.monotonic()
            publishing = it.putting()
            receipt = f"RECEIPT\nreceipt-id:{(await peer.frame('SEND'))['receipt']}\n\n\0".encode()
            await connection.send_bytes(receipt[:8])
            await connection.send_bytes(receipt[8:])
            await publishing
            seconds.append(time.monotonic() - begun)
    # The first ones are quick in any case: a young connection is acknowledged at once.
    assert statistics.median(seconds[20:]) < 0.03
