"""`consume_from: all`: brokers behind one name that know nothing of each other, as they come, fall and go."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from app.connectors.base import Delivery
from app.connectors.stomp import addresses, alias, spread
from app.connectors.stomp.addresses import Address
from app.domain.errors import BrokerRejected, BrokerUnavailable, Draining, OutcomeUnknown
from app.domain.link import Connections, LinkFault, LinkState
from app.domain.message import Message
from app.gateway.leases import Lease
from app.gateway.takings import Takings
from tests.contract.conftest import WAIT, Recorder
from tests.faults.alias_site import ACTIVEMQ, ALL, RABBIT, Names, Open, Site, standing, until
from tests.faults.conftest import Connect, queue, topic
from tests.faults.peer import Script, ScriptedPeer
from tests.faults.test_left_behind import Made


async def test_every_broker_has_a_consumer_and_one_gets_the_publishes(site: Open) -> None:
    async with site(3, client_id="gw") as here:
        it = here.it
        assert it.states == [LinkState.UP]
        logins = [[f.headers.get("client-id") for _, f in p.received if f.command == "CONNECT"] for p in here.peers]
        assert sorted(login for peer in logins for login in peer if login) == ["gw"] * 3
        assert sum(len(peer.connections) for peer in here.peers) == 4
        for _ in range(3):
            await it.put()
        assert sorted(peer.count("SEND") for peer in here.peers) == [0, 0, 3]
        recorder, subscription = await it.consume(queue())
        for number, (connection, asked) in enumerate(await here.subscribed()):
            await connection.message(asked, b"%d" % number, ack="same")
        got = [await recorder.next() for _ in range(3)]
        assert sorted(delivery.message.body for delivery in got) == [b"0", b"1", b"2"]
        assert len({delivery.epoch for delivery in got}) == len({delivery.token for delivery in got}) == 3
        for delivery in got:
            assert subscription.ack(delivery)
            connection, frame = await here.peers[int(delivery.message.body)].frame_from("ACK")
            assert frame["id"] == "same"
            assert not subscription.ack(delivery)
            assert not subscription.nack(delivery)
        await subscription.close(WAIT)
        for peer in here.peers:
            await peer.frame("UNSUBSCRIBE")


async def test_a_broker_that_falls_takes_only_its_own_with_it(site: Open) -> None:
    async with site(connected=RABBIT) as here:
        it, (one, two) = here.it, here.peers
        recorder, subscription = await it.consume(queue())
        (first, asked_first), (second, asked_second) = await here.subscribed()
        await first.message(asked_first, b"1", ack="T_1@@s@@1")
        await second.message(asked_second, b"2", ack="T_1@@s@@1")
        got = {delivery.message.body: delivery for delivery in [await recorder.next(), await recorder.next()]}
        await two.shut()
        assert await recorder.word() == f"withdrawn: {got[b'2'].token}"
        assert not subscription.ack(got[b"2"])
        assert subscription.ack(got[b"1"])
        assert (await one.frame("ACK"))["id"] == "T_1@@s@@1"
        await here.up(2)
        await first.message(asked_first, b"3", ack="T_1@@s@@2")
        assert (await recorder.next()).message.body == b"3"
        await two.open()
        await here.all_up()
        back, again = await two.frame_from("SUBSCRIBE")
        assert again["id"] != asked_second
        await back.message(again["id"], b"2", ack="T_1@@s@@1", redelivered="true")
        delivery = await recorder.next()
        assert delivery.message.redelivered
        assert delivery.epoch != got[b"2"].epoch
        assert not subscription.ack(got[b"2"]), "an ack never crosses an epoch"
        assert subscription.ack(delivery)
        assert recorder.told.empty()


async def test_publishing_and_the_state_do_not_mind_one_that_is_down(site: Open) -> None:
    async with site() as here:
        it, (one, two) = here.it, here.peers
        publishing = await _publishes_at(here)
        other = two if publishing is one else one
        await other.shut()
        await here.up(2)
        await it.put()
        status = it.connector.status
        assert (status.state, status.connections) == (LinkState.UP, Connections(2, 3))
        assert status.last_error is not None
        assert status.last_error.code in {LinkFault.REFUSED, LinkFault.CLOSED_BY_BROKER}
        assert it.states == [LinkState.UP]
        recorder, _ = await it.consume(queue(), timeout=1)
        connection, frame = await publishing.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"x", ack="1")
        assert (await recorder.next()).message.body == b"x"
        await other.open()
        await here.all_up()
        connection, frame = await other.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"y", ack="1")
        assert (await recorder.next()).message.body == b"y"
        assert recorder.told.empty(), "a Queue keeps its messages: nothing was missed"


async def _publishes_at(here: Site) -> ScriptedPeer:
    await here.it.put()
    return next(peer for peer in here.peers if peer.count("SEND"))


async def test_a_publish_in_flight_ends_as_unknown_with_its_own_broker_only(site: Open) -> None:
    async with site() as here:
        publishing = await _publishes_at(here)
        other = next(peer for peer in here.peers if peer is not publishing)
        for peer in here.peers:
            peer.script.receipts = False
        pending = here.it.putting()
        connection, _ = await publishing.frame_from("SEND", where=lambda frame: frame.headers["receipt"] != "r1")
        await other.shut()
        await here.up(2)
        assert not pending.done()
        connection.close()
        with pytest.raises(OutcomeUnknown):
            await pending


async def test_readers_of_a_topic_are_told_of_a_gap_when_the_lost_one_is_back(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        recorder, _ = await here.it.consume(topic())
        (first, asked_first), (_, _) = await here.subscribed()
        await two.shut()
        await here.up(2)
        await first.message(asked_first, b"meanwhile")
        assert (await recorder.next()).message.body == b"meanwhile", "nothing is told before it is over"
        await two.open()
        assert [await recorder.word(), await recorder.word()] == ["lost", "restored"]
        connection, frame = await two.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"again")
        assert (await recorder.next()).message.body == b"again"
        assert recorder.told.empty()


async def test_the_gap_comes_before_the_first_message_also_where_that_overtakes_the_receipt(site: Open) -> None:
    async with site() as here:
        two = here.peers[1]
        recorder, _ = await here.it.consume(topic())
        await here.subscribed()
        two.script.receipts = False
        (await two.connection(len(two.connections))).close()
        for each in two.connections:
            each.close()
        connection, frame = await two.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"early")
        assert await recorder.word() == "lost"
        assert await recorder.word() == "restored"
        assert (await recorder.next()).message.body == b"early"
        await connection.release()
        await recorder.nothing(0.1)


async def test_where_all_are_lost_it_is_one_loss_and_a_gap_for_each_that_comes_back(site: Open) -> None:
    async with site() as here:
        one, two = here.peers
        jobs, _ = await here.it.consume(queue())
        news, _ = await here.it.consume(topic())
        await one.shut()
        await two.shut()
        assert await jobs.word() == "lost"
        assert await news.word() == "lost"
        assert here.it.connector.status.state is not LinkState.UP
        with pytest.raises(BrokerUnavailable):
            await here.it.consume(queue(), timeout=0.1)
        await one.open()
        assert await jobs.word() == "restored"
        assert await news.word() == "restored"
        assert news.told.empty()
        await two.open()
        assert [await news.word(), await news.word()] == ["lost", "restored"]
        await here.all_up()
        assert jobs.told.empty()


async def test_a_new_address_is_consumed_from_and_what_came_before_is_a_gap(site: Open) -> None:
    async with site(1) as here, ScriptedPeer.listen() as new:
        jobs, _ = await here.it.consume(queue())
        news, _ = await here.it.consume(topic())
        here.names.say("alias", here.peers[0], new)
        for recorder, name in ((jobs, "/queue/jobs"), (news, "/topic/news")):
            connection, frame = await new.frame_from("SUBSCRIBE", where=lambda f, name=name: f["destination"] == name)  # type: ignore[misc]
            await connection.message(frame["id"], b"new", ack="1")
            if recorder is news:
                assert [await news.word(), await news.word()] == ["lost", "restored"]
            assert (await recorder.next()).message.body == b"new"
        assert here.it.connector.status.connections == Connections(3, 3)
        assert here.it.states == [LinkState.UP]


async def test_a_gone_address_is_drained(site: Open) -> None:
    async with site() as here:
        one, two = here.peers
        jobs, subscription = await here.it.consume(queue())
        news, _ = await here.it.consume(topic())
        connection, frame = await two.frame_from("SUBSCRIBE", where=lambda f: f["destination"] == "/queue/jobs")
        await connection.message(frame["id"], b"held", ack="7")
        held = await jobs.next()
        here.names.say("alias", one)
        assert await jobs.word() == f"withdrawn: {held.token}"
        for _ in range(2):
            assert (await two.frame_from("UNSUBSCRIBE"))[0] is connection
        assert (await two.frame_from("DISCONNECT"))[0] is connection
        await connection.wait_ended()
        assert not subscription.ack(held)
        await here.up(2)
        await until(lambda: here.it.connector.status.connections.of == 2)
        await here.names.again(3)
        assert news.told.empty(), "it had everything until the end"
        assert here.it.states == [LinkState.UP]
        here.names.say("alias", one, two)
        (await two.frame_from("SUBSCRIBE", where=lambda f: f["destination"] == "/queue/jobs"))
        await here.all_up()


async def test_an_address_that_is_missing_once_keeps_its_connection(site: Open) -> None:
    async with site() as here:
        one, two = here.peers
        for _ in range(3):
            here.names.say("alias", one)
            asked = here.names.asked
            await until(lambda asked=asked: here.names.asked > asked)  # type: ignore[misc]
            here.names.say("alias", one, two)
            await here.names.again(2)
        assert two.count("DISCONNECT") == 0
        assert here.it.connector.status.connections == Connections(3, 3)


async def test_one_that_is_lost_and_then_gone_is_a_gap_when_it_is_given_up(site: Open) -> None:
    async with site() as here:
        publishing = await _publishes_at(here)
        other = next(peer for peer in here.peers if peer is not publishing)
        news, _ = await here.it.consume(topic())
        await other.shut()
        await here.up(2)
        assert news.told.empty()
        here.names.say("alias", publishing)
        assert [await news.word(), await news.word()] == ["lost", "restored"]


async def test_names_that_fail_change_nothing_and_are_told(site: Open) -> None:
    async with site() as here:
        recorder, _ = await here.it.consume(topic())
        here.names.book["alias"] = socket.gaierror(-3, "Temporary failure in name resolution")
        await here.names.again(5)
        status = here.it.connector.status
        assert (status.state, status.connections) == (LinkState.UP, Connections(3, 3))
        assert status.last_error is not None
        assert (status.last_error.code, status.last_error.detail) == (
            LinkFault.DNS,
            "alias: Temporary failure in name resolution",
        )
        assert recorder.told.empty()


async def test_a_name_that_does_not_resolve_at_first(subject: Connect, names: Names) -> None:
    async with ScriptedPeer.listen() as peer, subject("alias:61613", up=False, **ALL) as it:
        await it.state(LinkState.DOWN)
        assert it.fault is LinkFault.DNS
        with pytest.raises(BrokerUnavailable, match="no broker of svc is known: alias: Name or service not known"):
            await it.consume(queue(), timeout=0.2)
        names.say("alias", peer)
        await it.state(LinkState.UP)
        await it.consume(queue())
        assert it.connector.status.connections == Connections(2, 2)


async def test_a_resolver_that_hangs_holds_nobody_up_for_longer_than_was_said(
    subject: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_name: str, _port: int) -> list[Address]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(addresses, "lookup", hang)
    async with subject("alias:61613", up=False, connect_timeout=0.2, **ALL) as it:
        with pytest.raises(BrokerUnavailable, match="not resolved yet"):
            await it.consume(queue(), timeout=0.05)
        await it.state(LinkState.DOWN)
        waiting = asyncio.ensure_future(it.consume(queue(), timeout=WAIT))
        with pytest.raises(BrokerUnavailable, match="not resolved in time"):
            await asyncio.wait_for(waiting, 1)


async def test_several_hosts_one_of_which_is_no_name(subject: Connect, names: Names) -> None:
    async with ScriptedPeer.listen() as one, ScriptedPeer.listen() as two:
        names.say("alias", one, two)
        names.say("other", two)
        async with subject("", hosts=["alias:1", "other:1", "nowhere:1"], **ALL) as it:
            await until(lambda: it.connector.status.connections.up == 3)
            assert it.connector.status.connections == Connections(3, 3), "an address counts once"
            await names.again(6)
            assert (it.fault, it.connector.status.state) == (LinkFault.DNS, LinkState.UP)


async def test_a_broker_that_says_nothing_delays_nobody(
    site: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", 0.1)
    async with site() as here:
        one, two = here.peers
        two.script.receipts = False
        began = asyncio.get_running_loop().time()
        news, subscription = await here.it.consume(topic(), timeout=1)
        assert asyncio.get_running_loop().time() - began < 0.6
        connection, frame = await one.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"1")
        assert (await news.next()).message.body == b"1"
        late, _ = await two.frame_from("SUBSCRIBE")
        await late.release()
        assert [await news.word(), await news.word()] == ["lost", "restored"]
        await subscription.close(0.1)


async def test_one_that_never_confirms_is_tried_again_on_its_next_connection(
    site: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", 0.05)
    async with site() as here:
        two = here.peers[1]
        two.script.receipts = False
        jobs, _ = await here.it.consume(queue(), timeout=0.3)
        connection, _ = await two.frame_from("SUBSCRIBE")
        await two.frame("UNSUBSCRIBE")
        assert "not subscribed at" in caplog.text
        two.script.receipts = True
        connection.close()
        connection, frame = await two.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"2", ack="1")
        assert (await jobs.next()).message.body == b"2"


async def _refuse(peer: ScriptedPeer) -> None:
    """As ActiveMQ refuses a SUBSCRIBE."""
    peer.script.receipts = False
    connection, frame = await peer.frame_from("SUBSCRIBE")
    await connection.send("ERROR", {"receipt-id": frame["receipt"], "message": "not authorized"})


async def test_one_that_refuses_leaves_the_others(site: Open, caplog: pytest.LogCaptureFixture) -> None:
    async with site() as here:
        one, two = here.peers
        refusing = asyncio.ensure_future(_refuse(two))
        two.script.receipts = False
        jobs, _ = await here.it.consume(queue())
        await refusing
        assert "not authorized" in caplog.text
        connection, frame = await one.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"1", ack="1")
        assert (await jobs.next()).message.body == b"1"


async def test_where_all_refuse_it_is_refused(site: Open) -> None:
    async with site() as here:
        for peer in here.peers:
            peer.script.receipts = False
        refusing = [asyncio.ensure_future(_refuse(peer)) for peer in here.peers]
        with pytest.raises(BrokerRejected, match="not authorized"):
            await here.it.consume(queue())
        await asyncio.gather(*refusing)
        for peer in here.peers:
            peer.script.receipts = True
        await here.it.consume(queue())


async def test_a_part_that_its_broker_ends_is_a_gap_and_the_last_one_the_end(site: Open) -> None:
    async with site() as here:
        news, _ = await here.it.consume(topic())
        (first, asked_first), (second, asked_second) = await here.subscribed()
        await second.send("ERROR", {"subscription": asked_second, "message": "deleted"})
        assert [await news.word(), await news.word()] == ["lost", "restored"]
        await first.send("ERROR", {"subscription": asked_first, "message": "deleted, too"})
        assert await news.word() == "cancelled: deleted, too"
        assert here.it.connector._alias is not None
        assert not here.it.connector._alias._spreads


async def test_a_message_given_back_on_activemq_reopens_its_part_only(site: Open) -> None:
    async with site(connected=ACTIVEMQ) as here:
        one, two = here.peers
        jobs, subscription = await here.it.consume(queue())
        (first, asked_first), (second, asked_second) = await here.subscribed()
        await first.message(asked_first, b"1", ack="a")
        kept = await jobs.next()
        for number in range(2):
            await second.message(asked_second, b"2%d" % number, ack=f"b{number}")
        given, other = await jobs.next(), await jobs.next()
        assert subscription.nack(given)
        assert await jobs.word() == f"withdrawn: {other.token}", "ActiveMQ takes them back together"
        assert (await two.frame("UNSUBSCRIBE"))["id"] == asked_second
        assert (await two.frame("SUBSCRIBE"))["destination"] == "/queue/jobs"
        assert subscription.ack(kept)
        assert one.count("UNSUBSCRIBE") == 0
        assert not subscription.ack(other)


async def test_leaving_ends_one_part(site: Open) -> None:
    async with site(connected=ACTIVEMQ) as here:
        two = here.peers[1]
        jobs, subscription = await here.it.consume(queue())
        (first, asked_first), (second, asked_second) = await here.subscribed()
        await first.message(asked_first, b"1", ack="a")
        kept = await jobs.next()
        await second.message(asked_second, b"2", ack="b")
        left = await jobs.next()
        assert subscription.leave(left)
        assert not subscription.leave(left)
        assert (await two.frame("UNSUBSCRIBE"))["id"] == asked_second
        assert not subscription.ack(left)
        assert not subscription.leave(kept), "the last one is for `close`"
        assert subscription.ack(kept)


async def test_a_caller_that_gives_up_leaves_nothing(site: Open) -> None:
    async with site() as here:
        for peer in here.peers:
            peer.script.receipts = False
        task = asyncio.ensure_future(here.it.consume(queue()))
        asked = await here.subscribed()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for peer, (_, identity) in zip(here.peers, asked, strict=True):
            assert (await peer.frame("UNSUBSCRIBE"))["id"] == identity
            for connection in peer.connections:
                await connection.release()
        assert here.it.connector._alias is not None
        assert not here.it.connector._alias._spreads


async def test_it_closes_in_order(site: Open) -> None:
    async with site(3) as here:
        await here.it.consume(queue())
        await here.it.connector.close(WAIT)
        ended = {id(connection) for peer in here.peers for connection, f in peer.received if f.command == "DISCONNECT"}
        assert len(ended) == 4
        assert here.it.states == [LinkState.UP, LinkState.DRAINING, LinkState.CLOSED]
        with pytest.raises(Draining):
            await here.it.consume(queue())


async def test_it_closes_while_nothing_is_there(subject: Connect, names: Names) -> None:
    async with subject("alias:61613", up=False, **ALL) as it:
        await it.state(LinkState.DOWN)
        await it.connector.close(WAIT)
        assert it.connector.status.state is LinkState.CLOSED
        with pytest.raises(Draining):
            await it.consume(queue())


async def test_other_hosts_take_the_place_of_these_at_once(site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias, "GONE_AFTER", 1000)
    async with site() as here, ScriptedPeer.listen() as new:
        here.names.say("elsewhere", new)
        jobs, _ = await here.it.consume(queue())
        settings = here.it.settings.model_copy(update={"hosts": ["elsewhere:61613"]})
        assert here.it.connector.reconfigure(settings)
        connection, frame = await new.frame_from("SUBSCRIBE")
        await connection.message(frame["id"], b"new", ack="1")
        while not isinstance(told := await jobs.told.get(), Delivery):
            pass
        assert told.message.body == b"new"
        await until(lambda: here.it.connector.status.connections == Connections(2, 2))
        for peer in here.peers:
            for each in peer.connections:
                await each.wait_ended()


async def test_another_kind_of_consuming_needs_another_connector(site: Open) -> None:
    async with site() as here:
        one = here.it.settings.model_copy(update={"consume_from": "one"})
        assert not here.it.connector.reconfigure(one)
        more = here.it.settings.model_copy(update={"allow_undeclared": True})
        assert here.it.connector.reconfigure(more)
        here.it.connector.retry()
        await here.names.again()
        assert here.it.states == [LinkState.UP]
        assert [peer.count("CONNECT") for peer in here.peers] in ([1, 2], [2, 1])


async def test_too_many_addresses_are_not_all_connected(
    site: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alias, "MAX_MEMBERS", 2)
    async with site(2) as here, ScriptedPeer.listen() as third:
        here.names.say("alias", *here.peers, third)
        await here.names.again(2)
        assert caplog.text.count("1 addresses too many") == 1
        assert third.connections == []
        here.names.say("alias", *here.peers)
        await here.names.again(2)
        assert "0 addresses too many" in caplog.text


async def test_the_names_are_asked_at_a_bounded_pace(subject: Connect, names: Names) -> None:
    async with ScriptedPeer.listen() as peer:
        names.say("alias", peer)
        async with subject("alias:61613", **ALL):
            await names.again(2)
            before = names.asked
            await asyncio.sleep(0.5)
            assert names.asked - before <= 10


@pytest.mark.parametrize(
    ("connected", "settings", "warned"),
    [
        (ACTIVEMQ, {}, True),
        (ACTIVEMQ, {"consume_from": "one"}, False),
        (RABBIT, {}, False),
    ],
)
async def test_several_activemq_behind_the_hosts_are_warned_of(
    subject: Connect,
    names: Names,
    caplog: pytest.LogCaptureFixture,
    connected: dict[str, str],
    settings: dict[str, str],
    warned: bool,
) -> None:
    async with ScriptedPeer.listen(Script(connected=connected)) as one, ScriptedPeer.listen() as two:
        names.say("alias", one, two)
        async with subject("alias:61613", **settings) as it:
            if not warned:  # which is said now, and changes nothing
                assert it.connector.reconfigure(it.settings.model_copy(update={"consume_from": "one"}))
                assert it.connector.status.epoch == 1
            (await one.connection()).close()
            await it.until(lambda: it.connector.status.epoch > 1)
            await it.state(LinkState.UP)
        assert caplog.text.count("2 brokers behind its hosts") == warned


async def test_leases_of_two_brokers_do_not_hold_each_other(site: Open, takings: Takings) -> None:
    async with site(connected=ACTIVEMQ) as here:
        jobs, connector = queue(), here.it.connector

        def taking() -> asyncio.Task[list[Lease]]:
            return asyncio.ensure_future(takings.take(jobs, connector, most=1, seconds=60, wait=WAIT))

        first = taking()
        (one, asked_one), (two, asked_two) = await here.subscribed()
        await one.message(asked_one, b"1", ack="1")
        (lease,) = await first
        await two.message(asked_two, b"2", ack="1")
        (other,) = await taking()
        assert other.holder is lease.holder, "one lane, a message of each"
        assert takings.nack(jobs.uri, takings.token(lease), requeue=True, delay=0) == "done"
        assert (await here.peers[0].frame("UNSUBSCRIBE"))["id"] == asked_one
        assert here.peers[1].count("UNSUBSCRIBE") == 0
        again = taking()
        (one, asked_one), _ = await here.subscribed()
        await one.message(asked_one, b"1", ack="2", redelivered="true")
        (lease,) = await again
        assert takings.ack(jobs.uri, takings.token(other)) == "done"
        assert takings.ack(jobs.uri, takings.token(lease)) == "done"
        assert [(await peer.frame("ACK"))["id"] for peer in here.peers] == ["2", "1"]


async def test_a_broker_that_falls_ends_its_own_leases(site: Open, takings: Takings) -> None:
    async with site(connected=ACTIVEMQ) as here:
        jobs, connector = queue(), here.it.connector
        task = asyncio.ensure_future(takings.take(jobs, connector, most=2, seconds=60, wait=WAIT))
        for number, (connection, asked) in enumerate(await here.subscribed()):
            await connection.message(asked, b"%d" % number, ack="1")
        leases = {lease.delivery.message.body: lease for lease in await task}
        await here.peers[1].shut()
        await here.up(2)
        assert takings.ack(jobs.uri, takings.token(leases[b"1"])) == "expired"
        assert takings.ack(jobs.uri, takings.token(leases[b"0"])) == "done"


async def test_what_has_ended_is_freed_at_once(site: Open) -> None:
    async with site() as here:
        gc.collect()
        gc.disable()
        try:
            listeners, messages = Made(Recorder), Made(Message)
            jobs, subscription = await here.it.consume(queue())
            for connection, asked in await here.subscribed():
                await connection.message(asked, bytes(1000), ack="1")
            await until(lambda: messages.alive == 2)
            await subscription.close(WAIT)
            while not jobs.told.empty():
                jobs.told.get_nowait()
            await until(lambda: messages.alive == 0)
            del jobs, subscription
            gc.collect()
            assert listeners.alive == 0
        finally:
            gc.enable()


async def test_a_gone_broker_that_answers_nothing_is_left(
    site: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alias, "RETIRE_SECONDS", 0.1)
    async with site() as here:
        publishing = await _publishes_at(here)
        other = next(peer for peer in here.peers if peer is not publishing)
        await here.it.consume(queue())
        other.script.receipts = False
        here.names.say("alias", publishing)
        for connection in other.connections:
            await connection.wait_ended()
        await until(lambda: "did not answer in time, and is left" in caplog.text)
        await here.all_up(1)


async def test_refusing_goes_to_its_broker(site: Open) -> None:
    async with site() as here:
        jobs, subscription = await here.it.consume(queue())
        _, (second, asked) = await here.subscribed()
        await second.message(asked, b"poison", ack="b")
        assert subscription.reject(await jobs.next())
        assert (await here.peers[1].frame("NACK"))["id"] == "b"
        assert here.peers[0].count("NACK") == 0


async def test_a_broker_that_refuses_to_be_joined_is_left_out_and_the_last_of_them_is_the_end(
    site: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(1) as here, ScriptedPeer.listen(Script(receipts=False)) as new:
        jobs, _ = await here.it.consume(queue())
        here.names.say("alias", here.peers[0], new)
        connection, frame = await new.frame_from("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": frame["receipt"], "message": "not authorized"})
        await until(lambda: "ended it: the broker refused: not authorized" in caplog.text)
        assert jobs.told.empty()
        # Where the one that had taken it is lost, and will not have it again, there is nobody left.
        here.peers[0].script.receipts = False
        (await here.peers[0].frame_from("SUBSCRIBE"))[0].close()
        assert await jobs.word() == "lost"
        connection, frame = await here.peers[0].frame_from("SUBSCRIBE")
        await connection.send("ERROR", {"receipt-id": frame["receipt"], "message": "not authorized"})
        assert (await jobs.word()).startswith("cancelled: ")


async def test_one_that_ends_it_while_others_are_waited_for_is_left_out(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", 60)
    async with site(3) as here:
        here.peers[2].script.receipts = False
        consuming = asyncio.ensure_future(here.it.consume(queue()))
        (first, _), (second, asked), (third, _) = await here.subscribed()
        await until(lambda: standing(here) == 2)
        await second.send("ERROR", {"subscription": asked, "message": "deleted"})
        await until(lambda: standing(here) == 1)
        await third.release()
        jobs, subscription = await consuming
        assert jobs.told.empty()
        assert len(subscription._parts) == 2  # type: ignore[attr-defined]
        first.close()
        third.close()
        assert await jobs.word() == "lost"


async def test_where_all_are_lost_while_one_is_waited_for_it_is_not_open(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "STRAGGLERS", 0.3)
    async with site() as here:
        here.peers[1].script.receipts = False
        consuming = asyncio.ensure_future(here.it.consume(queue()))
        (first, _), _ = await here.subscribed()
        await until(lambda: standing(here) == 1)
        here.peers[0].script.connected = None
        first.close()
        with pytest.raises(BrokerUnavailable):
            await consuming
