"""Publishing when the broker misbehaves: every publish ends, as exactly one outcome."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp import transport
from app.domain.errors import (
    BodyTooLarge,
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    DestinationQuarantined,
    Draining,
    GatewayError,
    InvalidHeader,
    Outcome,
    Overloaded,
)
from app.domain.link import LinkFault, LinkState
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject, publication, queue
from tests.faults.peer import Script, ScriptedPeer


async def held(peer: ScriptedPeer, number: int) -> list[str]:
    """The receipts of the next SENDs."""
    return [frame["receipt"] for frame in await peer.frames("SEND", number)]


async def test_behaviour_04_receipts_out_of_order_resolve_the_right_requests(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        tasks = [it.putting(b"%d" % number) for number in range(5)]
        receipts = await held(peer, 5)
        connection = await peer.connection()
        for number in (3, 0, 4):
            await connection.release(receipts[number])
            await asyncio.wait_for(tasks[number], WAIT)
        assert not tasks[1].done()
        assert not tasks[2].done()
        await connection.release()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_behaviour_06_a_cut_ends_all_that_is_pending_as_unknown(subject: Connect, how: str) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        tasks = [it.putting() for _ in range(20)]
        await held(peer, 20)
        getattr(await peer.connection(), how)()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        assert [type(result) for result in results] == [ConnectionLost] * 20
        assert {result.outcome for result in results if isinstance(result, GatewayError)} == {Outcome.UNKNOWN}
        await it.state(LinkState.UP)
        assert it.connector.status.epoch == 2


async def test_a_missing_receipt_is_unknown_at_the_deadline_and_counted_when_late(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        with pytest.raises(ConfirmTimeout):
            await it.put(timeout=0.1)
        await (await peer.connection()).release()
        await it.until(lambda: "late_receipt" in it.events)
        assert it.connector.in_flight == 0


async def test_an_error_that_names_its_receipt_ends_only_that_request(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        good, bad = it.putting(to=queue("good")), it.putting(to=queue("bad"))
        receipts = await held(peer, 2)
        connection = await peer.connection()
        await connection.send("ERROR", {"receipt-id": receipts[1], "message": "not allowed"})
        with pytest.raises(BrokerRejected, match="not allowed"):
            await asyncio.wait_for(bad, WAIT)
        await connection.release(receipts[0])
        await asyncio.wait_for(good, WAIT)
        assert it.connector.status.epoch == 1


async def test_an_error_that_quotes_a_destination_finds_the_only_request_to_it(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        missing = queue("app", destination="/exchange/logs/app")
        good, bad = it.putting(to=queue("good")), it.putting(to=missing)
        await held(peer, 2)
        connection = await peer.connection()
        await connection.send("ERROR", {"message": "not_found"}, b"NOT_FOUND - no exchange 'logs' in vhost '/'")
        connection.close()
        with pytest.raises(BrokerRejected, match="no exchange 'logs'"):
            await asyncio.wait_for(bad, WAIT)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(good, WAIT)


async def test_an_error_that_fits_two_requests_blames_neither(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        tasks = [it.putting(to=queue("same")) for _ in range(2)]
        await held(peer, 2)
        connection = await peer.connection()
        await connection.send("ERROR", {"message": "access_refused"}, b"access to queue 'same' refused")
        connection.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionLost] * 2
        assert "access to queue 'same' refused" in str(results[0])
        assert it.events == ["error_unattributed"]


async def test_behaviour_07_a_link_that_is_connecting_is_waited_for(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=None)) as peer, subject(peer.address, up=False) as it:
        waiting = it.putting()
        await peer.frame("CONNECT")
        assert not waiting.done()
        await (await peer.connection()).send("CONNECTED", {"version": "1.2"})
        await asyncio.wait_for(waiting, WAIT)


async def test_the_timeout_covers_the_waiting_for_a_link(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=None)) as peer, subject(peer.address, up=False) as it:
        with pytest.raises(BrokerUnavailable) as caught:
            await it.put(timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert peer.count("SEND") == 0


async def test_behaviour_07_a_link_that_is_down_answers_at_once(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer:
        address = peer.address
    async with subject(address, up=False, reconnect={"initial": 10, "jitter": 0}) as it:
        await it.state(LinkState.DOWN)
        with pytest.raises(BrokerUnavailable) as caught:
            await asyncio.wait_for(it.put(timeout=20), 1)
        assert caught.value.retry_after is not None
        assert 5 < caught.value.retry_after <= 10
        assert "refused" in str(caught.value)


async def test_behaviour_07_the_window_is_bounded(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address, window=2) as it:
        tasks = [it.putting(), it.putting()]
        await held(peer, 2)
        with pytest.raises(Overloaded) as caught:
            await it.put()
        assert caught.value.outcome is Outcome.NOT_SENT
        await (await peer.connection()).release()
        await asyncio.gather(*tasks)
        assert it.connector.in_flight == 0


async def test_nothing_more_is_sent_to_a_broker_that_does_not_read(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WRITE_DEADLINE", 0.5)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        (await peer.connection()).stop_reading()
        stuck = [it.putting(bytes(4_000_000), timeout=5) for _ in range(3)]
        await it.full()
        with pytest.raises(Overloaded) as caught:
            await it.put(timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_SENT
        results = await asyncio.wait_for(asyncio.gather(*stuck, return_exceptions=True), 3)
        assert type(results[0]) is ConnectionLost
        assert all(isinstance(result, GatewayError) for result in results)
        assert it.fault is LinkFault.WRITE_TIMEOUT
        await it.state(LinkState.UP)


async def test_unconfirmed_needs_no_receipt_and_tells_a_lost_connection(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WRITE_DEADLINE", 0.2)
    async with ScriptedPeer.listen() as peer, subject(peer.address) as it:
        await it.connector.publish(queue(), publication(), timeout=WAIT, confirm=False)
        assert "receipt" not in (await peer.frame("SEND")).headers
        (await peer.connection()).stop_reading()
        with pytest.raises(ConnectionLost):
            await it.connector.publish(queue(), publication(bytes(8_000_000)), timeout=WAIT, confirm=False)


async def test_limits_of_the_broker_are_checked_before_the_wire(subject: Connect) -> None:
    connected = {"version": "1.2", "server": "RabbitMQ/4.0.5"}
    async with ScriptedPeer.listen(Script(connected=connected)) as peer, subject(peer.address) as it:
        assert it.connector.max_frame == 4 * 1024 * 1024
        with pytest.raises(BodyTooLarge):
            await it.put(bytes(4 * 1024 * 1024))
        wide = publication(headers={"a": ":" * 60_000})
        with pytest.raises(InvalidHeader):
            await it.connector.publish(queue(), wide, timeout=WAIT)
        await it.put(bytes(4 * 1024 * 1024 - 1000))
        assert peer.count("SEND") == 1


async def test_queue_arguments_go_with_the_first_send_of_a_session(subject: Connect) -> None:
    connected = {"version": "1.2", "server": "RabbitMQ/3.10.8"}
    quorum = queue("q", arguments={"x-queue-type": "quorum"})
    async with ScriptedPeer.listen(Script(connected=connected)) as peer, subject(peer.address) as it:
        for _ in range(2):
            await it.put(to=quorum)
        (await peer.connection()).close()
        await it.until(lambda: it.connector.status.epoch == 2 and it.connector.status.state is LinkState.UP)
        await it.put(to=quorum)
        sent = await peer.frames("SEND", 3)
        assert ["x-queue-type" in frame.headers for frame in sent] == [True, False, True]


async def test_behaviour_40_closing_waits_for_receipts_then_disconnects(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        task = it.putting()
        await held(peer, 1)
        closing = asyncio.ensure_future(it.connector.close(WAIT))
        await it.state(LinkState.DRAINING)
        with pytest.raises(Draining):
            await it.put()
        peer.script.receipts = True
        await (await peer.connection()).release()
        await asyncio.wait_for(asyncio.gather(task, closing), WAIT)
        assert (await peer.frame("DISCONNECT"))["receipt"]
        assert it.connector.status.state is LinkState.CLOSED
        await (await peer.connection()).wait_ended()


async def test_closing_ends_at_its_deadline(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        task = it.putting()
        await held(peer, 1)
        await asyncio.wait_for(it.connector.close(0.1), 2)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(task, WAIT)


async def test_a_cancelled_publish_leaves_nothing_behind(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        task = it.putting()
        await held(peer, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert it.connector.in_flight == 0


async def test_a_retry_at_once_after_a_lost_connection_goes_to_the_next_one(subject: Connect) -> None:
    """For some turns of the loop the connection has ended and the link does not know yet."""
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:

        async def persistent() -> None:
            with pytest.raises(ConnectionLost):
                await it.put()
            await it.put(timeout=3)

        tasks = [asyncio.ensure_future(persistent()) for _ in range(5)]
        await held(peer, 5)
        peer.script.receipts = True
        (await peer.connection()).reset()
        await asyncio.wait_for(asyncio.gather(*tasks), 2)
        assert peer.count("SEND") == 10


async def test_a_destination_that_keeps_ending_the_connection_rests(subject: Connect) -> None:
    """RabbitMQ closes for an exchange that is missing; everybody else goes on within a second."""
    connected = {"version": "1.2", "server": "RabbitMQ/3.10.8"}
    bad = queue("bad", destination="/exchange/nope/x")
    script = Script(connected=connected, receipts=False)
    async with ScriptedPeer.listen(script) as peer, subject(peer.address) as it:
        killing = asyncio.ensure_future(kill_for(peer, "/exchange/nope/x"))
        for epoch in range(1, 4):
            with pytest.raises((BrokerRejected, ConnectionLost)):
                await it.put(to=bad)
            await it.until(lambda: up_since(it, epoch))  # noqa: B023 - awaited in the same turn
        assert "destination_quarantined" in it.events
        assert it.connector.quarantined(bad)
        assert not it.connector.quarantined(queue())
        with pytest.raises(DestinationQuarantined) as caught:
            await it.put(to=bad)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert caught.value.retry_after is not None
        assert 50 < caught.value.retry_after <= 60
        with pytest.raises(DestinationQuarantined):
            await it.consume(bad)
        script.receipts = True
        await it.put()
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


async def kill_for(peer: ScriptedPeer, path: str) -> None:
    """A broker that refuses one destination by ending the connection."""
    while True:
        connection, _ = await peer.frame_from("SEND", WAIT, where=lambda frame: frame["destination"] == path)
        await connection.send("ERROR", {"message": "not_found"}, b"NOT_FOUND - no exchange 'nope' in vhost '/'")
        connection.close()


def up_since(it: Subject, epoch: int) -> bool:
    """Whether a later connection than that one is up."""
    status = it.connector.status
    return status.epoch > epoch and status.state is LinkState.UP


def refused_after(it: Subject, epoch: int) -> bool:
    """Whether an attempt was made since, and failed."""
    status = it.connector.status
    return status.epoch > epoch and status.state is LinkState.DOWN


async def test_a_broker_that_restarts_accuses_nobody(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address) as it:
        for number in range(1, 5):
            task = it.putting(to=queue("innocent"))
            await held(peer, 1)
            epoch = it.connector.status.epoch
            await peer.shut()
            with pytest.raises(ConnectionLost):
                await task
            await it.until(lambda: refused_after(it, epoch))  # noqa: B023 - awaited in the same turn
            await peer.open()
            await it.state(LinkState.UP)
            assert len(peer.connections) == number + 1
        assert not it.connector.quarantined(queue("innocent"))
