"""Several messages in one transaction, when the broker misbehaves: all of them end as one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.connectors.base import Destination
from app.domain.errors import (
    BodyTooLarge,
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    DestinationQuarantined,
    GatewayError,
    Outcome,
    OutcomeUnknown,
    Overloaded,
)
from app.domain.link import LinkState
from app.domain.message import Publication
from tests.contract.conftest import WAIT
from tests.faults.conftest import Connect, Subject, queue
from tests.faults.peer import Connection, Script, ScriptedPeer

RABBITMQ = {"version": "1.2", "server": "RabbitMQ/3.12.14", "heart-beat": "0,0"}
ACTIVEMQ = {"version": "1.2", "server": "ActiveMQ/5.18.3", "heart-beat": "0,0"}


def publications(count: int, body: bytes = b"hello") -> list[Publication]:
    return [Publication(body=body, message_id=f"id-{number}") for number in range(count)]


async def together(
    it: Subject, messages: Sequence[Publication], *, to: Destination | None = None, timeout: float = WAIT
) -> None:
    await it.connector.publish_together(to or queue(), messages, timeout=timeout)


def begin(it: Subject, count: int = 3, *, to: Destination | None = None, timeout: float = WAIT) -> asyncio.Task[None]:
    return asyncio.ensure_future(together(it, publications(count), to=to, timeout=timeout))


def commands(peer: ScriptedPeer) -> list[str]:
    return [frame.command for _, frame in peer.received if frame.command != "CONNECT"]


async def receipts(peer: ScriptedPeer, command: str, number: int) -> list[str]:
    return [frame["receipt"] for frame in await peer.frames(command, number)]


@pytest.mark.parametrize("server", [RABBITMQ, ACTIVEMQ], ids=["rabbitmq", "activemq"])
async def test_all_frames_are_of_one_transaction(subject: Connect, server: dict[str, str]) -> None:
    async with ScriptedPeer.listen(Script(connected=server)) as peer, subject(peer.address) as it:
        await together(it, publications(3))
        assert commands(peer) == ["BEGIN", "SEND", "SEND", "SEND", "COMMIT"]
        frames = [frame for _, frame in peer.received if frame.command != "CONNECT"]
        assert {frame["transaction"] for frame in frames} == {"id-0"}
        assert [frame["mq-message-id"] for frame in frames[1:4]] == ["id-0", "id-1", "id-2"]
        assert it.connector.in_flight == 0


async def test_without_confirmation_nothing_is_asked_for(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ)) as peer, subject(peer.address) as it:
        await it.connector.publish_together(queue(), publications(2), timeout=WAIT, confirm=False)
        await peer.frame("COMMIT")
        assert not any("receipt" in frame.headers for _, frame in peer.received)


async def test_rabbitmq_has_confirmed_when_commit_and_every_send_are_answered(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        sends, (commit,) = await receipts(peer, "SEND", 3), await receipts(peer, "COMMIT", 1)
        connection = await peer.connection()
        await connection.release(commit, sends[2], sends[0])
        done, _ = await asyncio.wait([task], timeout=0.1)
        assert not done
        await connection.release(sends[1])
        await asyncio.wait_for(task, WAIT)


async def test_activemq_is_asked_to_commit_when_every_send_is_answered(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        sends = await receipts(peer, "SEND", 3)
        connection = await peer.connection()
        await connection.release(*sends[:2])
        await peer.none("COMMIT", 0.1)
        await connection.release(sends[2])
        await peer.frame("COMMIT")
        assert not task.done()
        await connection.release()
        await asyncio.wait_for(task, WAIT)


async def test_a_refused_send_aborts_on_activemq(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        sends = await receipts(peer, "SEND", 3)
        await (await peer.connection()).send("ERROR", {"receipt-id": sends[1], "message": "not allowed"})
        with pytest.raises(BrokerRejected, match="not allowed"):
            await asyncio.wait_for(task, WAIT)
        assert (await peer.frame("ABORT"))["transaction"] == "id-0"
        assert peer.count("COMMIT") == 0
        await (await peer.connection()).release(*(receipt for receipt in sends if receipt != sends[1]))
        assert it.connector.status.epoch == 1


async def test_a_deadline_before_commit_aborts_and_nothing_was_sent(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        with pytest.raises(BrokerUnavailable, match="not committed") as caught:
            await together(it, publications(2), timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_SENT
        await peer.frame("ABORT")
        assert peer.count("COMMIT") == 0
        assert it.connector.in_flight == 0


async def test_a_cut_before_commit_is_certain(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        await receipts(peer, "SEND", 3)
        (await peer.connection()).reset()
        with pytest.raises(BrokerUnavailable, match="not committed"):
            await asyncio.wait_for(task, WAIT)


@pytest.mark.parametrize("server", [RABBITMQ, ACTIVEMQ], ids=["rabbitmq", "activemq"])
async def test_a_cut_during_commit_is_unknown(subject: Connect, server: dict[str, str]) -> None:
    async with ScriptedPeer.listen(Script(connected=server, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        sends = await receipts(peer, "SEND", 3)
        connection = await peer.connection()
        await connection.release(*sends)
        await peer.frame("COMMIT")
        connection.reset()
        with pytest.raises(ConnectionLost) as caught:
            await asyncio.wait_for(task, WAIT)
        assert caught.value.outcome is Outcome.UNKNOWN
        await it.state(LinkState.UP)
        assert it.connector.in_flight == 0


async def test_a_commit_without_an_answer_is_unknown_at_the_deadline(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        with pytest.raises(ConfirmTimeout):
            await together(it, publications(2), timeout=0.1)
        assert peer.count("ABORT") == 0  # it is over for the broker: an unknown transaction would be an ERROR
        await (await peer.connection()).release()
        await it.until(lambda: it.events.count("late_receipt") == 3)


async def test_rabbitmq_quotes_the_destination_and_all_are_rejected(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        missing = queue("app", destination="/exchange/logs/app")
        task, other = begin(it, to=missing), it.putting(to=queue("good"))
        await peer.frame("COMMIT")
        connection = await peer.connection()
        await connection.send("ERROR", {"message": "not_found"}, b"NOT_FOUND - no exchange 'logs' in vhost '/'")
        connection.close()
        with pytest.raises(BrokerRejected, match="no exchange 'logs'"):
            await asyncio.wait_for(task, WAIT)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(other, WAIT)


async def test_a_part_that_was_confirmed_makes_the_whole_unknown(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        sends, (commit,) = await receipts(peer, "SEND", 3), await receipts(peer, "COMMIT", 1)
        connection: Connection = await peer.connection()
        await connection.send("ERROR", {"receipt-id": sends[1], "message": "no"})
        await connection.release(sends[0], sends[2], commit)
        with pytest.raises(OutcomeUnknown, match="a part"):
            await asyncio.wait_for(task, WAIT)


async def test_a_refused_commit_is_rejected(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        connection = await peer.connection()
        await connection.release(*await receipts(peer, "SEND", 3))
        (commit,) = await receipts(peer, "COMMIT", 1)
        await connection.send("ERROR", {"receipt-id": commit, "message": "no"})
        with pytest.raises(BrokerRejected):
            await asyncio.wait_for(task, WAIT)


async def test_a_broker_that_does_not_read_gets_no_commit(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(reading=False, receipts=False)) as peer:
        peer.script.reading = True
        async with subject(peer.address) as it:
            (await peer.connection()).stop_reading()
            with pytest.raises(Overloaded, match="does not read") as caught:
                await together(it, publications(40, b"x" * 200_000), timeout=0.3)
            assert caught.value.outcome is Outcome.NOT_SENT
            (await peer.connection()).resume_reading()
            await peer.frame("ABORT")
            assert peer.count("COMMIT") == 0


async def test_one_that_cannot_be_sent_keeps_the_others_back(subject: Connect) -> None:
    async with ScriptedPeer.listen() as peer, subject(peer.address, max_frame_bytes=2000) as it:
        messages = [*publications(2), *publications(1, b"x" * 3000)]
        with pytest.raises(BodyTooLarge):
            await together(it, messages)
        await it.put()
        assert commands(peer) == ["SEND"]


async def test_all_of_them_have_a_place_in_the_window_or_none(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, subject(peer.address, window=4) as it:
        waiting = it.putting()
        await peer.frame("SEND")
        with pytest.raises(Overloaded):
            await together(it, publications(4))
        task = begin(it, 3)
        await peer.frame("COMMIT")
        assert it.connector.in_flight == 4
        await (await peer.connection()).release()
        await asyncio.gather(task, waiting)


async def test_only_so_many_transactions_are_open(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        tasks = [begin(it, 1) for _ in range(8)]
        await peer.frames("BEGIN", 8)
        with pytest.raises(Overloaded, match="transactions"):
            await together(it, publications(1), timeout=0.1)
        late = begin(it, 1)
        await peer.none("BEGIN", 0.05)
        peer.script.receipts = True
        await (await peer.connection()).release()
        await asyncio.gather(*tasks, late)


async def test_queue_arguments_go_out_with_the_first_send(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBITMQ)) as peer, subject(peer.address) as it:
        await together(it, publications(2), to=queue(arguments={"x-queue-type": "quorum"}))
        first, second = await peer.frames("SEND", 2)
        assert first["x-queue-type"] == "quorum"
        assert "x-queue-type" not in second.headers


async def test_a_client_that_gives_up_before_commit_leaves_no_transaction_open(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=ACTIVEMQ, receipts=False)) as peer, subject(peer.address) as it:
        task = begin(it)
        await receipts(peer, "SEND", 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.frame("ABORT")
        assert it.connector.in_flight == 0


async def test_its_destination_is_suspected_when_the_broker_closes(subject: Connect) -> None:
    script = Script(connected=RABBITMQ, receipts=False)
    async with ScriptedPeer.listen(script) as peer, subject(peer.address) as it:
        for number in range(1, 4):
            task = begin(it)
            await peer.frame("COMMIT")
            (await peer.connection(number)).close()
            with pytest.raises(GatewayError):
                await asyncio.wait_for(task, WAIT)
            await it.until(lambda number=number: it.connector.status.epoch == number + 1)  # type: ignore[misc]
            await it.state(LinkState.UP)
        with pytest.raises(DestinationQuarantined):
            await together(it, publications(1))
