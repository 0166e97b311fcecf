"""Topics with a stream behind them: declared before use, read from an offset, over lost links and retention."""

from __future__ import annotations

import asyncio

import pytest

from app.config.settings import TopicSettings
from app.connectors.base import Destination, Subscription
from app.connectors.stomp import declarations
from app.connectors.stomp.subscription import STREAM_ENDS
from app.domain.errors import BrokerUnavailable, DestinationQuarantined, NotSupportedByBroker, Unavailable
from app.domain.link import LinkState
from app.domain.stream import FIRST, LAST, StreamStart, after
from tests.contract.conftest import WAIT, Recorder
from tests.faults.conftest import Connect, Subject, publication, topic
from tests.faults.peer import Script, ScriptedPeer
from tests.faults.stream_peer import RABBIT, StreamPeer
from tests.stomp_frames import Frame

STREAM = {"replay": "stream", "stream": "alerts-stream", "stream_max_age": "7D"}
DECLARED = {"topics": {"alerts": STREAM}}


def alerts() -> Destination:
    return topic("alerts", **STREAM)


async def read(it: Subject, start: StreamStart, prefetch: int = 10) -> tuple[Recorder, Subscription]:
    recorder = Recorder()
    subscription = await it.connector.subscribe(
        alerts(), recorder, acknowledge=True, prefetch=prefetch, timeout=WAIT, start=start
    )
    return recorder, subscription


async def offsets(recorder: Recorder, subscription: Subscription, count: int) -> list[tuple[int | None, str | None]]:
    found: list[tuple[int | None, str | None]] = []
    for _ in range(count):
        delivery = await recorder.next()
        assert subscription.ack(delivery)
        found.append((delivery.offset, delivery.missing))
    return found


async def test_the_stream_is_declared_when_the_link_comes_up(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        made, bound = await peer.frames("SUBSCRIBE", 2)
        assert (made["destination"], bound["destination"]) == ("/queue/alerts-stream", "/topic/alerts")
        assert bound["x-queue-name"] == "alerts-stream"
        expected = {
            "x-queue-type": "stream",
            "x-max-age": "7D",
            "durable": "true",
            "auto-delete": "false",
            "ack": "client-individual",
            "x-stream-offset": "offset=9223372036854775807",
        }
        for asked, ended in zip((made, bound), await peer.frames("UNSUBSCRIBE", 2), strict=True):
            assert expected.items() <= asked.headers.items()
            assert "exclusive" not in asked.headers
            assert ended["id"] == asked["id"]
            assert "durable" not in ended.headers, "RabbitMQ would delete the stream"
        await it.put(to=alerts())
        assert peer.vanished == 0
        assert peer.log.messages == {0: b"hello"}


async def test_a_publish_waits_for_the_declaration(subject: Connect) -> None:
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            putting = it.putting(to=alerts())
            connection, asked = await peer.frame_from("SUBSCRIBE")
            await peer.none("SEND", 0.1)
            peer.script.receipts = True
            await connection.release(asked["receipt"])
            await putting
            assert peer.vanished == 0


async def test_a_transaction_waits_for_the_declaration(subject: Connect) -> None:
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            both = [publication(b"1"), publication(b"2")]
            putting = asyncio.ensure_future(it.connector.publish_together(alerts(), both, timeout=WAIT))
            connection, asked = await peer.frame_from("SUBSCRIBE")
            await peer.none("BEGIN", 0.1)
            peer.script.receipts = True
            await connection.release(asked["receipt"])
            await putting
            assert (peer.vanished, peer.log.messages) == (0, {0: b"1", 1: b"2"})


async def test_a_request_waits_for_the_declaration(subject: Connect) -> None:
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            asking = asyncio.ensure_future(it.connector.request(alerts(), publication(b"?"), timeout=WAIT))
            connection, asked = await peer.frame_from("SUBSCRIBE")
            await peer.none("SEND", 0.1)
            peer.script.receipts = True
            await connection.release(asked["receipt"])
            sent = await peer.frame("SEND")
            await connection.message(sent["reply-to"], b"!", correlation_id=sent["correlation-id"])
            assert (await asking).body == b"!"
            assert peer.vanished == 0


async def test_a_publish_does_not_wait_for_ever(subject: Connect) -> None:
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            with pytest.raises(BrokerUnavailable, match="not declared in time"):
                await it.put(to=alerts(), timeout=0.1)
            assert peer.count("SEND") == 0


async def test_nothing_comes_while_it_is_declared(subject: Connect) -> None:
    """RabbitMQ 3.10.8 would delete the stream if a message overtook the answer."""
    async with StreamPeer.serve() as peer:
        peer.made = True
        peer.publish(b"0", b"1")
        async with subject(peer.address, **DECLARED) as it:
            await it.put(to=alerts())
            assert peer.log.messages == {0: b"0", 1: b"1", 2: b"hello"}
            assert peer.unanswered() == 0
            assert it.connector.status.epoch == 1


async def test_readers_have_a_connection_of_their_own(subject: Connect) -> None:
    """For theirs RabbitMQ ends now and then: nobody else is to notice."""
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        plain, _ = await it.consume(topic("other"))
        recorder, subscription = await read(it, FIRST)
        (reader,) = peer.reading
        reader.connection.close()
        assert await recorder.word() == "lost"
        await it.put(to=alerts())
        assert await recorder.word() == "restored"
        assert await offsets(recorder, subscription, 1) == [(0, None)]
        assert (it.connector.status.epoch, it.states.count(LinkState.UP)) == (1, 1)
        await plain.nothing(0)


async def test_what_ends_the_connection_of_readers_makes_nothing_rest(subject: Connect) -> None:
    """RabbitMQ 3.10.8 ends it for a first message that overtakes the answer."""
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        recorder, _ = await read(it, FIRST)
        await peer.frame_from("SUBSCRIBE", where=_reads)
        peer.script.receipts = False
        peer.reading[0].connection.close()
        for _ in range(3):
            assert await recorder.word() == "lost"
            (await peer.frame_from("SUBSCRIBE", where=_reads))[0].close()
        peer.script.receipts = True
        while (word := await recorder.word()) != "restored":
            assert word == "lost"
        await read(it, FIRST)
        await it.put(to=alerts())


async def test_a_reader_for_whom_it_ends_again_and_again_is_given_up(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        recorder, _ = await read(it, FIRST)
        await peer.frame_from("SUBSCRIBE", where=_reads)
        peer.script.receipts = False
        peer.reading[0].connection.close()
        for _ in range(1 + STREAM_ENDS):  # the first one may have been anybody's
            assert await recorder.word() == "lost"
            connection, _ = await peer.frame_from("SUBSCRIBE", where=_reads)
            await connection.send("ERROR", {"message": "Processing error"}, b"AMQP channel died")
            connection.close()
        assert "AMQP channel died" in await recorder.word()
        assert it.connector.status.epoch == 1


async def test_without_readers_there_is_no_such_connection(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        await it.put(to=alerts())
        assert len(peer.connections) == 1


async def test_a_stream_that_somebody_deleted_is_made_anew(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        await it.put(to=alerts())
        peer.delete()
        recorder, subscription = await read(it, FIRST)
        await it.put(to=alerts())
        assert await offsets(recorder, subscription, 1) == [(0, None)]
        assert peer.vanished == 0
        assert it.connector.status.epoch == 1, "others share this connection"


async def test_a_stream_deleted_under_its_readers_is_there_for_the_next_publish(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        recorder, _ = await read(it, FIRST)
        peer.delete()
        assert "canceled" in await recorder.word()
        await it.put(to=alerts())
        assert (peer.vanished, peer.log.messages) == (0, {0: b"hello"})
        assert it.connector.status.epoch == 1


async def test_a_stream_deleted_while_its_readers_are_cut_off_is_there_for_the_next_publish(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        recorder, _ = await read(it, FIRST)
        (reader,) = peer.reading
        reader.connection.close()
        assert await recorder.word() == "lost"
        peer.readers.clear()
        peer.delete()
        assert "NOT_FOUND" in await recorder.word()
        await it.put(to=alerts())
        assert (peer.vanished, peer.log.messages) == (0, {0: b"hello"})


async def test_another_name_in_the_configuration_is_another_stream(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        await it.put(to=alerts())
        renamed = {"alerts": TopicSettings(replay="stream", stream="renamed")}
        assert it.connector.reconfigure(it.settings.model_copy(update={"topics": renamed}))
        await it.put(to=topic("alerts", **renamed["alerts"].model_dump(exclude_unset=True)))
        bound = [frame["x-queue-name"] for _, frame in peer.received if "x-queue-name" in frame.headers]
        assert bound == ["alerts-stream", "renamed"]


async def test_readers_need_the_other_connection_only_once(subject: Connect) -> None:
    """It may be the one that RabbitMQ does not read from."""
    async with StreamPeer.serve() as peer, subject(peer.address, connections="split", **DECLARED) as it:
        await it.put(to=alerts())
        await read(it, LAST)
        peer.script.connected = {}
        next(connection for connection, frame in peer.received if frame.command == "SEND").close()
        await it.until(lambda: it.connector.status.state is LinkState.DOWN)
        recorder, subscription = await read(it, FIRST)
        assert await offsets(recorder, subscription, 1) == [(0, None)]


async def test_who_still_waits_at_the_end_opens_no_connection(subject: Connect) -> None:
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            connection, asked = await peer.frame_from("SUBSCRIBE")
            reading = asyncio.ensure_future(read(it, FIRST))
            putting = it.putting(to=topic("other"))
            await peer.frame("SEND")
            closing = asyncio.ensure_future(it.connector.close(WAIT))
            await asyncio.sleep(0)
            peer.script.receipts = True
            await connection.release(asked["receipt"])
            with pytest.raises(Unavailable):
                await reading
            await connection.release()
            await asyncio.gather(putting, closing)
            assert len(peer.connections) == 1


async def test_a_declaration_without_an_answer_is_tried_again(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "DEADLINE", 0.1)
    async with StreamPeer.serve() as peer:
        peer.script.receipts = False
        async with subject(peer.address, **DECLARED) as it:
            with pytest.raises(BrokerUnavailable, match="does not confirm"):
                await it.put(to=alerts())
            peer.script.receipts = True
            await (await peer.connection()).release()
            await it.put(to=alerts())
            assert peer.vanished == 0


async def test_a_refused_stream_rests_and_leaves_the_link_to_the_others(subject: Connect) -> None:
    """RabbitMQ 3.10.8: ERROR, RECEIPT, the end. Each further attempt would end the connection of all."""
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer,
        subject(peer.address, **DECLARED) as it,
    ):
        connection, asked = await peer.frame_from("SUBSCRIBE")
        text = b"PRECONDITION_FAILED - inequivalent arg 'x-max-age' for queue 'alerts-stream' in vhost '/'"
        await connection.send("ERROR", {"message": "precondition_failed"}, text)
        await connection.send("RECEIPT", {"receipt-id": asked["receipt"]})
        peer.script.receipts = True
        connection.close()
        await it.until(lambda: it.connector.status.epoch == 2 and it.connector.status.state is LinkState.UP)
        await it.put(to=topic("other"))
        with pytest.raises(BrokerUnavailable, match="inequivalent arg"):
            await it.put(to=alerts())
        with pytest.raises(BrokerUnavailable, match="inequivalent arg"):
            await read(it, FIRST)
        assert peer.count("SUBSCRIBE") == 1
        assert it.connector.reconfigure(it.settings.model_copy(update={"allow_undeclared": True}))
        await peer.frame("SUBSCRIBE")
        await it.put(to=alerts())


async def test_a_stream_that_ends_three_connections_rests_as_any_destination_does(subject: Connect) -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer,
        subject(peer.address, **DECLARED) as it,
    ):
        for _ in range(3):
            (await peer.frame_from("SUBSCRIBE"))[0].close()
        peer.script.receipts = True
        await it.until(lambda: it.connector.status.epoch == 4 and it.connector.status.state is LinkState.UP)
        await it.put(to=topic("other"))
        with pytest.raises(DestinationQuarantined):
            await it.put(to=alerts())
        assert peer.count("SUBSCRIBE") == 3


async def test_a_broker_without_streams_says_so(subject: Connect) -> None:
    active = {"version": "1.2", "server": "ActiveMQ/5.17.2"}
    async with ScriptedPeer.listen(Script(connected=active)) as peer, subject(peer.address, **DECLARED) as it:
        with pytest.raises(NotSupportedByBroker, match="ActiveMQ"):
            await read(it, FIRST)
        with pytest.raises(NotSupportedByBroker):
            await it.put(to=alerts())
        assert peer.count("SUBSCRIBE") == peer.count("SEND") == 0


async def test_with_two_connections_the_one_that_publishes_declares(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, connections="split", **DECLARED) as it:
        await it.put(to=alerts())
        sent = next(connection for connection, frame in peer.received if frame.command == "SEND")
        declared = next(connection for connection, frame in peer.received if frame.command == "SUBSCRIBE")
        assert sent is declared
        assert peer.vanished == 0


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (FIRST, [(2, None), (3, None)]),
        (LAST, [(5, None)]),
        (after(3), [(4, None), (5, None)]),
        (after(0), [(2, "expired"), (3, None)]),
        (after(-1), [(2, "expired")]),
    ],
    ids=["first", "last", "after", "expired", "before all"],
)
async def test_where_it_begins(subject: Connect, start: StreamStart, expected: list[tuple[int, str | None]]) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        peer.publish(*(b"%d" % number for number in range(6)))
        peer.log.expire(2)
        recorder, subscription = await read(it, start)
        peer.publish(b"6")
        assert await offsets(recorder, subscription, len(expected)) == expected


async def test_after_a_lost_link_it_goes_on_where_it_was(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        peer.publish(b"0", b"1")
        recorder, subscription = await read(it, FIRST)
        assert await offsets(recorder, subscription, 2) == [(0, None), (1, None)]
        peer.close_all()
        peer.publish(b"2")
        assert await recorder.word() == "lost"
        peer.publish(b"3")
        await it.until(lambda: it.connector.status.epoch == 2)
        assert await recorder.word() == "restored"
        assert await offsets(recorder, subscription, 2) == [(2, None), (3, None)]


@pytest.mark.parametrize(("expired", "missing"), [(False, None), (True, "expired")])
async def test_what_retention_removed_meanwhile_is_told(subject: Connect, expired: bool, missing: str | None) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        peer.publish(b"0")
        recorder, subscription = await read(it, LAST)
        await offsets(recorder, subscription, 1)
        peer.close_all()
        peer.publish(b"1", b"2")
        peer.log.skip(3)
        peer.publish(b"6")
        if expired:
            peer.log.expire(2)
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        first = await offsets(recorder, subscription, 1)
        assert first == [(2 if expired else 1, missing)]


async def test_credit_is_what_was_acknowledged(subject: Connect) -> None:
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        peer.publish(*(b"%d" % number for number in range(10)))
        recorder, subscription = await read(it, FIRST, prefetch=3)
        got = [await recorder.next() for _ in range(3)]
        await recorder.nothing(0.1)
        assert not subscription.nack(got[0]), "RabbitMQ would end the connection"
        assert not subscription.reject(got[0]), "as would this"
        assert all(map(subscription.ack, got))
        assert await offsets(recorder, subscription, 7) == [(number, None) for number in range(3, 10)]


@pytest.mark.parametrize("chunk", [1, 20])
async def test_what_is_unacked_at_the_end_is_acked(subject: Connect, chunk: int) -> None:
    """It would stay with the connection, which RabbitMQ ends for one message that nobody answers for long."""
    async with StreamPeer.serve() as peer, subject(peer.address, **DECLARED) as it:
        peer.chunk = chunk
        peer.publish(*(b"%d" % number for number in range(30)))
        recorder, subscription = await read(it, FIRST, prefetch=3)
        await recorder.next()
        await subscription.close(WAIT)
        await asyncio.sleep(0)
        await it.put(to=topic("other"))
        assert peer.unanswered() == 0
        assert peer.count("NACK") == 0
        assert it.connector.status.epoch == 1


async def test_what_is_no_stream_is_refused(subject: Connect) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, subject(peer.address, **DECLARED) as it:
        recorder, _ = await read(it, FIRST)
        connection, asked = await peer.frame_from("SUBSCRIBE", where=_reads)
        await connection.message(asked["id"], b"x", ack="1")
        assert "no stream" in await recorder.word()


def _reads(frame: Frame) -> bool:
    return frame["destination"].startswith("/amq/queue/")
