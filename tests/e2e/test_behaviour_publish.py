"""Behaviours of publishing through HTTP, by their numbers in docs/conformance.md."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.process import LOOPBACK
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import Answer, Http, Sse, ask, connections, eventually, post
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.faults.peer import Connection, Script, ScriptedPeer

MEBIBYTE = 1 << 20


def scripted(peer: ScriptedPeer, **settings: Any) -> dict[str, Any]:
    """A service of the configuration: a scripted peer."""
    known = {"mq_type": "Stomp", "host": LOOPBACK, "port": peer.port, "allow_undeclared": True}
    return {**known, "reconnect": {"initial": 0.1, "increase": 0, "max": 0.1}, **settings}


@contextlib.asynccontextmanager
async def before(peer: ScriptedPeer, folder: Path, **settings: Any) -> AsyncIterator[LiveGateway]:
    """A gateway whose service `mq` is the peer, and up."""
    async with running(write_config(folder, {"mq": scripted(peer, **settings)})) as gateway:
        await gateway.until_up("mq")
        yield gateway


async def test_behaviour_01_five_hundred_first_posts_open_one_connection(
    broker: Broker, tmp_path: Path, unique: Unique
) -> None:
    path = f"/mq/mq/Queues/{unique('first')}?timeout=20"
    login = {"user": "first", "password": "first"} if isinstance(broker, RabbitMQ) else {}
    if isinstance(broker, RabbitMQ):
        await broker.add_user("first", "first")
        await broker.set_permissions("first")
    # Nobody waits for the link: the first ones come while it is connecting.
    async with running(write_config(tmp_path, {"mq": stomp(broker, **login)})) as gateway:
        async with connections(gateway.port, 500) as https:
            answers = await asyncio.gather(*(http.ask("POST", path, b"%d" % n) for n, http in enumerate(https)))
        assert Counter(answer.status for answer in answers) == {200: 500}
        assert len(gateway.broker_ports(broker)) == 1
        assert (await gateway.link("mq"))["link"] == "up"
        assert await gateway.metric("mq_gateway_reconnects_total", service="mq") == 0
        if isinstance(broker, RabbitMQ):
            assert len(await gateway.broker_pids(broker)) == 1
            # The broker's own list, and that it is a login: nobody else uses this name.
            assert (await broker.ctl("list_stomp_connections", "auth_login")).split().count("first") == 1


async def test_behaviour_02_a_post_is_answered_after_its_receipt_and_not_before(tmp_path: Path) -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, before(peer, tmp_path) as gateway:
        waiting = asyncio.create_task(post(gateway.port, "/mq/mq/Queues/jobs", b"x"))
        connection, frame = await peer.frame_from("SEND")
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done, "answered without a RECEIPT"
        await connection.release(frame["receipt"])
        answer = await waiting
        assert (answer.status, answer.json["confirmed"]) == (200, True)

        answer = await post(gateway.port, "/mq/mq/Queues/jobs?confirm=none", b"x")
        assert (answer.status, answer.json["confirmed"]) == (202, False)
        assert "receipt" not in (await peer.frame("SEND")).headers


async def test_behaviour_03_04_a_thousand_posts_are_on_the_wire_together_and_each_has_its_own_outcome(
    tmp_path: Path,
) -> None:
    """No RECEIPT comes before the last SEND, so this can only end where none waits for another."""
    async with (
        ScriptedPeer.listen(Script(receipts=False)) as peer,
        before(peer, tmp_path) as gateway,
        connections(gateway.port, 1000) as https,
    ):
        asking = [
            asyncio.create_task(http.ask("POST", f"/mq/mq/Queues/q{number}?timeout=20", b"%d" % number))
            for number, http in enumerate(https)
        ]
        frames = await peer.frames("SEND", 1000, 20)
        receipts = {int(frame.body): frame["receipt"] for frame in frames}
        assert set(receipts) == set(range(1000))
        connection = await peer.connection()
        for number in sorted(receipts, key=lambda number: (number * 7919) % 1000):
            await answer(connection, receipts[number], refuse=number % 3 == 0)
        answers = await asyncio.gather(*asking)
        for number, got in enumerate(answers):
            expected = (502, "rejected") if number % 3 == 0 else (200, "confirmed")
            assert (got.status, got.outcome) == expected, number
        assert len({got.json["message_id"] for got in answers if got.status == 200}) == 666
        assert len(peer.connections) == 1


async def answer(connection: Connection, receipt: str, *, refuse: bool) -> None:
    """The RECEIPT, or an ERROR that names it."""
    if refuse:
        connection.held.remove(receipt)
        await connection.send("ERROR", {"receipt-id": receipt, "message": "refused by the script"})
    else:
        await connection.release(receipt)


async def test_behaviour_03_a_thousand_posts_at_once_at_a_real_broker(
    target: Target, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue = unique("thousand")
    async with connections(target.port, 1000) as https:
        asking = (http.ask("POST", f"/mq/mq/Queues/{queue}?timeout=20", b"%d" % n) for n, http in enumerate(https))
        answers = await asyncio.gather(*asking)
    assert Counter(answer.status for answer in answers) == {200: 1000}
    ids = {answer.json["message_id"]: b"%d" % number for number, answer in enumerate(answers)}
    assert len(ids) == 1000
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    found = {}
    for _ in range(1000):
        headers, body = await client.next_message()
        found[headers["mq-message-id"]] = body
    assert found == ids, "every answer names the message that its own request sent"


async def test_behaviour_06_a_cut_ends_every_post_in_flight_at_once(tmp_path: Path) -> None:
    async with (
        ScriptedPeer.listen(Script(receipts=False)) as peer,
        before(peer, tmp_path) as gateway,
        connections(gateway.port, 200) as https,
    ):
        asking = [asyncio.create_task(http.ask("POST", "/mq/mq/Queues/jobs?timeout=30", b"x")) for http in https]
        await peer.frames("SEND", 200, 20)
        begun = time.monotonic()
        (await peer.connection()).reset()
        answers = await asyncio.gather(*asking)
        assert time.monotonic() - begun < 2
        assert Counter((a.status, a.code, a.outcome) for a in answers) == {(504, "connection_lost", "unknown"): 200}


async def test_behaviour_07_posts_during_an_outage_wait_within_their_time_and_within_the_cap(tmp_path: Path) -> None:
    """A link that is connecting is waited for; the cap holds for those who wait too."""
    cap, asked = 20, 50
    with socket.create_server((LOOPBACK, 0)) as silent:
        service = {"mq_type": "Stomp", "host": LOOPBACK, "port": silent.getsockname()[1], "allow_undeclared": True}
        config = write_config(tmp_path, {"mq": {**service, "connect_timeout": 30}}, limits={"in_flight": cap})
        async with running(config) as gateway, connections(gateway.port, asked) as https:

            async def publish(http: Http) -> tuple[float, Answer]:
                begun = time.monotonic()
                got = await http.ask("POST", "/mq/mq/Queues/jobs?timeout=2", b"x")
                return time.monotonic() - begun, got

            asking = [asyncio.create_task(publish(http)) for http in https]

            async def full() -> bool:
                return await gateway.metric("mq_gateway_in_flight", service="mq") == cap

            await eventually(full, "the cap", 1.5)
            ended = await asyncio.gather(*asking)
        codes = Counter(answer.code for _, answer in ended)
        assert codes == {"overloaded": asked - cap, "broker_unavailable": cap}
        for seconds, answer in ended:
            assert (answer.status, answer.outcome) == (503, "not_sent")
            assert int(answer.headers["retry-after"]) >= 1
            assert seconds < 1.5 if answer.code == "overloaded" else 2 <= seconds < 4


@pytest.mark.parametrize("body", [b"", b"{}", b"1", b"\0"], ids=repr)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-8", "application/x-odd"])
async def test_behaviour_27_smallest_bodies_keep_their_content_type(
    target: Target, stomp_client: ConnectStomp, unique: Unique, body: bytes, content_type: str
) -> None:
    queue = unique("small")
    got = await post(target.port, f"/mq/mq/Queues/{queue}", body, {"Content-Type": content_type})
    if content_type == "application/json" and body in (b"", b"\0"):
        assert (got.status, got.code) == (400, "invalid_json")
        return
    assert got.status == 200
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    headers, received = await client.next_message()
    assert (received, headers["content-type"]) == (body, content_type)


async def test_behaviour_28_what_is_too_large_sends_not_one_byte(tmp_path: Path) -> None:
    async with ScriptedPeer.listen() as peer, before(peer, tmp_path) as gateway:
        # All of it is written, whatever is answered: a client that does not listen must not get it through.
        async with await Http.connect(gateway.port) as http:
            refused = await http.ask("POST", "/mq/mq/Queues/jobs", bytes(5 * MEBIBYTE))
            assert (refused.status, refused.code, refused.outcome) == (413, "body_too_large", "not_sent")
        told = await ask(gateway.port, "POST", "/mq/mq/Queues/jobs", None, {"Content-Length": str(5 * MEBIBYTE)})
        assert (told.status, told.code, told.outcome) == (413, "body_too_large", "not_sent")
        assert (await post(gateway.port, "/mq/mq/Queues/jobs", b"small")).status == 200
        await peer.frame("SEND", where=lambda frame: frame.body == b"small")
        assert peer.count("SEND") == 1


async def test_behaviour_28_a_large_body_does_not_hold_up_small_ones(target: Target, unique: Unique) -> None:
    large, small = unique("large"), f"/mq/mq/Queues/{unique('small')}"
    body = bytes(int(3.9 * MEBIBYTE))
    async with await Http.connect(target.port) as http:
        sending = asyncio.create_task(post(target.port, f"/mq/mq/Queues/{large}?timeout=20", body))
        slowest = 0.0
        for number in range(100):
            begun = time.monotonic()
            assert (await http.ask("POST", small, b"%d" % number)).status == 200
            slowest = max(slowest, time.monotonic() - begun)
        assert (await sending).status == 200
    assert slowest < 1


async def test_behaviour_31_an_unauthorised_send_at_rabbitmq(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    """RabbitMQ ends the connection: the culprit is told, the others are unknown at the most, and it is back at once."""
    good, user = unique("good"), unique("user")
    await rabbitmq.add_user(user, "pw")
    await rabbitmq.set_permissions(user, configure="^good-.*", write=".*", read=".*")
    service = stomp(rabbitmq, user=user, password="pw")
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await gateway.until_up("mq")
        first = gateway.broker_ports(rabbitmq)
        path = f"/mq/mq/Queues/{good}?timeout=5"
        stop = asyncio.Event()
        others: Counter[tuple[int, str]] = Counter()

        async def publish() -> None:
            async with await Http.connect(gateway.port) as http:
                while not stop.is_set():
                    got = await http.ask("POST", path, b"x")
                    others[got.status, got.outcome] += 1

        publishers = [asyncio.create_task(publish()) for _ in range(5)]
        refused = await post(gateway.port, f"/mq/mq/Queues/{unique('secret')}", b"x")

        async def back() -> bool:
            return (await post(gateway.port, path, b"x")).status == 200 and gateway.broker_ports(rabbitmq) != first

        await eventually(back, "a new connection", 1)
        assert (refused.status, refused.code, refused.outcome) == (502, "broker_rejected", "rejected")
        assert "access to queue" in refused.json["detail"]
        stop.set()
        await asyncio.gather(*publishers)
        assert set(others) <= {(200, "confirmed"), (504, "unknown")}
        assert others[200, "confirmed"] > 0
        assert len(gateway.broker_ports(rabbitmq)) == 1


async def test_behaviour_31_an_unauthorised_send_at_activemq(
    activemq: ActiveMQ, tmp_path: Path, unique: Unique
) -> None:
    service = stomp(activemq, user="limited", password="limited")
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await gateway.until_up("mq")
        first = gateway.broker_ports(activemq)
        others = [
            asyncio.create_task(post(gateway.port, f"/mq/mq/Queues/{unique('open.good')}", b"x")) for _ in range(20)
        ]
        refused = await post(gateway.port, f"/mq/mq/Queues/{unique('secret')}", b"x")
        assert (refused.status, refused.code, refused.outcome) == (502, "broker_rejected", "rejected")
        assert "limited" in refused.json["detail"]
        assert {got.status for got in await asyncio.gather(*others)} == {200}
        assert gateway.broker_ports(activemq) == first
        assert await gateway.metric("mq_gateway_reconnects_total", service="mq") == 0


async def test_behaviour_34_a_full_queue_that_rejects_is_no_success(
    rabbitmq: RabbitMQ, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    """RabbitMQ 3.10 ends the connection without a word; others go on on the next one."""
    full, good = unique("full"), f"/mq/mq/Queues/{unique('good')}"
    await rabbitmq.ctl(
        "set_policy", full, f"^{full}$", '{"max-length":3,"overflow":"reject-publish"}', "--apply-to", "queues"
    )
    try:
        async with running(write_config(tmp_path, {"mq": stomp(rabbitmq)})) as gateway:
            await gateway.until_up("mq")
            answers = [await post(gateway.port, f"/mq/mq/Queues/{full}?timeout=3", b"%d" % n) for n in range(8)]
            client = await stomp_client(rabbitmq)
            await client.subscribe(f"/queue/{full}", ack="client-individual")
            held = await client.messages(3)
            taken = [b"%d" % n for n, got in enumerate(answers) if got.status == 200]
            assert held == taken == [b"0", b"1", b"2"]
            for got in answers[3:]:
                assert (got.status, got.outcome) in {(504, "unknown"), (503, "not_sent")}, got
            assert answers[3].outcome == "unknown"
            await works(gateway, good, b"x")
    finally:
        await rabbitmq.ctl("clear_policy", full)


async def works(gateway: LiveGateway, path: str, body: bytes) -> None:
    """Publish once: a link that pauses after several such ends refuses, for less than two seconds."""

    async def published() -> bool:
        got = await post(gateway.port, path, body)
        assert got.outcome in ("confirmed", "not_sent"), got
        return got.status == 200

    await eventually(published, "a working connection", 2)


async def test_behaviour_34_a_stream_on_the_same_service_goes_on(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    full, work = unique("full"), f"/mq/mq/Queues/{unique('work')}"
    await rabbitmq.ctl(
        "set_policy", full, f"^{full}$", '{"max-length":1,"overflow":"reject-publish"}', "--apply-to", "queues"
    )
    try:
        async with running(write_config(tmp_path, {"mq": stomp(rabbitmq)})) as gateway:
            await gateway.until_up("mq")
            async with await Sse.open(gateway.port, f"{work}/events") as stream:
                for number in range(3):
                    await post(gateway.port, f"/mq/mq/Queues/{full}?timeout=3", b"x")
                    await works(gateway, work, b"%d" % number)
                assert [event.data for event in await stream.take(3)] == ["0", "1", "2"]
    finally:
        await rabbitmq.ctl("clear_policy", full)
