"""Event streams and the broker behind them: what a client's words cause there, and what its faults cause here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.process import free_port
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import Http, RecordedSse, Sse, ask, eventually, get_json, post
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.e2e.relay import Relay
from tests.faults.peer import ScriptedPeer

LINGER = 0.5
HEARTBEAT = 0.2


@contextlib.asynccontextmanager
async def before(peer: ScriptedPeer, folder: Path, **server: Any) -> AsyncIterator[LiveGateway]:
    """A gateway whose service `mq` is the scripted peer."""
    service = {
        "mq_type": "Stomp",
        "host": peer.host,
        "port": peer.port,
        "user": "guest",
        "password": "guest",
        "heartbeat_ms": [0, 0],
        "reconnect": {"initial": 0.05, "increase": 0, "max": 0.05},
        "allow_undeclared": True,
        "topics": {"news": {"linger": LINGER}},
    }
    async with running(write_config(folder, {"mq": service}, server=server)) as gateway:
        await gateway.until_up("mq")
        yield gateway


MALICIOUS = [
    b"x" * 10_000,
    "\u00e9\u2028\U0001f600".encode(),
    b"offset=1",
    b"s.17",
    b"abcdefgh.-1",
    b"abcdefgh.%d" % 2**70,
    b"abcdefgh.1 x-stream-offset:first",
    b"../../queue/stolen",
    b"first",
    b"\t",
]
#: What no header line of HTTP carries, but a query does.
ONLY_IN_A_QUERY = [b"abcdefgh.1\r\nx-stream-offset:offset=0", b"a\n\n\0SEND\ndestination:/queue/stolen\n\n\0", b"a\0b"]


async def test_sse_case_31_a_malicious_position_reaches_no_frame(scripted_peer: ScriptedPeer, tmp_path: Path) -> None:
    async with before(scripted_peer, tmp_path) as gateway:
        for number, position in enumerate(MALICIOUS + ONLY_IN_A_QUERY):
            path = f"/mq/mq/Topics/t{number}/events"
            ways: list[tuple[str, dict[str, str]]] = [
                (f"{path}?last_event_id={quote_from_bytes(position, safe='')}", {})
            ]
            if position == MALICIOUS[0]:
                answer = await ask(gateway.port, "GET", path, None, {"Last-Event-ID": position.decode()})
                assert (answer.status, answer.code) == (431, "headers_too_large")
            elif position in MALICIOUS:
                ways.append((path, {"Last-Event-ID": position.decode("utf-8", "surrogateescape")}))
            for target, headers in ways:
                async with await Sse.open(gateway.port, target, headers) as stream:
                    if position.strip():
                        assert (await stream.next()).json["reason"] == "restart", position
        frames = [frame for _, frame in scripted_peer.received]
        assert [frame.command for frame in frames] == ["CONNECT", *["SUBSCRIBE"] * len(MALICIOUS + ONLY_IN_A_QUERY)]
        for number, frame in enumerate(frames[1:]):
            assert frame.headers == {
                "id": frame["id"],
                "destination": f"/topic/t{number}",
                "ack": "auto",
                "receipt": frame["receipt"],
            }


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_sse_case_43_a_reader_that_leaves_is_noticed_and_the_last_one_ends_the_subscription(
    scripted_peer: ScriptedPeer, tmp_path: Path, way: str
) -> None:
    """With a heartbeat of a minute: nothing has to be written to notice."""

    def leave(stream: Sse) -> None:
        stream.reset() if way == "rst" else stream.close()

    async with before(scripted_peer, tmp_path, heartbeat=60) as gateway:

        async def alone() -> bool:
            return bool((await get_json(gateway.port, "/mq/mq/Topics/news"))["readers"] == 1)

        one, other = [await Sse.open(gateway.port, "/mq/mq/Topics/news/events") for _ in range(2)]
        subscribed = await scripted_peer.frame("SUBSCRIBE")
        leave(one)
        await eventually(alone, "the end of the stream", 2)
        await scripted_peer.none("UNSUBSCRIBE", LINGER * 1.5)
        leave(other)
        # Back within the time that it lingers: nothing was unsubscribed.
        third = await Sse.open(gateway.port, "/mq/mq/Topics/news/events")
        await eventually(alone, "the end of the stream", 2)
        await scripted_peer.none("UNSUBSCRIBE", LINGER * 1.5)
        begun = time.monotonic()
        leave(third)
        ended = await scripted_peer.frame("UNSUBSCRIBE")
        assert LINGER <= time.monotonic() - begun < LINGER + 2
        assert ended["id"] == subscribed["id"]
        await Sse.open(gateway.port, "/mq/mq/Topics/news/events")
        assert (await scripted_peer.frame("SUBSCRIBE"))["id"] != subscribed["id"]
        assert scripted_peer.count("SUBSCRIBE") == 2
        assert await gateway.metric("mq_gateway_streams_closed_total", reason="client") == 3


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_sse_case_43_a_reader_of_a_queue_that_leaves_ends_its_subscription_at_once(
    scripted_peer: ScriptedPeer, tmp_path: Path, way: str
) -> None:
    """Nothing lingers: it would take messages away from readers that are there."""
    async with before(scripted_peer, tmp_path, heartbeat=60) as gateway:
        streams = [await Sse.open(gateway.port, "/mq/mq/Queues/jobs/events") for _ in range(2)]
        subscribed = await scripted_peer.frames("SUBSCRIBE", 2)
        for stream, frame in zip(streams, subscribed, strict=True):
            begun = time.monotonic()
            stream.reset() if way == "rst" else stream.close()
            assert (await scripted_peer.frame("UNSUBSCRIBE"))["id"] == frame["id"]
            assert time.monotonic() - begun < LINGER


async def test_sse_case_52_a_lost_link_leaves_the_stream_open_and_is_a_gap(
    scripted_peer: ScriptedPeer, tmp_path: Path
) -> None:
    async with before(scripted_peer, tmp_path, heartbeat=HEARTBEAT) as gateway:
        stream = await RecordedSse.open(gateway.port, "/mq/mq/Topics/news/events")
        connection, subscribed = await scripted_peer.frame_from("SUBSCRIBE")
        await connection.message(subscribed["id"], b"before")
        before_loss = await stream.next()
        await scripted_peer.shut()
        await gateway.until_link("mq", lambda view: view["link"] != "up")
        seen = len(stream.raw)
        with pytest.raises(TimeoutError):
            await stream.next(HEARTBEAT * 6)
        beats = stream.raw[seen:]
        assert beats == b": \n\n" * (len(beats) // 4), "something else than comments"
        assert len(beats) // 4 >= 4
        await scripted_peer.open()
        connection, again = await scripted_peer.frame_from("SUBSCRIBE")
        assert again["destination"] == subscribed["destination"]
        gap = await stream.next()
        assert (gap.name, gap.json) == ("gap", {"mq_uri": "mq::Topics::news", "reason": "link_lost", "missed": None})
        await connection.message(again["id"], b"after")
        after = await stream.next()
        assert after.data == "after"
        # One life of the ring, and the gap has its place in it.
        epoch, number = before_loss.id.split(".")
        assert [gap.id, after.id] == [f"{epoch}.{int(number) + 1}", f"{epoch}.{int(number) + 2}"]
        async with await Sse.open(
            gateway.port, "/mq/mq/Topics/news/events", {"Last-Event-ID": before_loss.id}
        ) as resumed:
            assert [event.name for event in await resumed.take(2)] == ["gap", "message"]
        assert scripted_peer.count("SUBSCRIBE") == 2


async def test_sse_case_52_at_a_real_broker_the_stream_goes_on_behind_a_gap(
    broker: Broker, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    """The network between the two goes away for a moment; the broker goes on, and what it gave out then is missed."""
    name, relay, port = unique("cut"), Relay(broker.port), free_port()
    service = stomp(broker, host="127.0.0.1", port=port)
    client = await stomp_client(broker)
    async with running(write_config(tmp_path, {"mq": service}, server={"heartbeat": HEARTBEAT})) as gateway:
        async with relay.listening(port):
            await gateway.until_up("mq")
            stream = await RecordedSse.open(gateway.port, f"/mq/mq/Topics/{name}/events")
            await client.send(f"/topic/{name}", "before")
            assert (await stream.next()).data == "before"
        await gateway.until_link("mq", lambda view: view["link"] != "up")
        await client.send(f"/topic/{name}", "missed")
        seen = len(stream.raw)
        with pytest.raises(TimeoutError):
            await stream.next(HEARTBEAT * 4)
        assert stream.raw[seen:].count(b": \n\n") >= 2
        async with relay.listening(port):
            gap = await stream.next()
            assert (gap.name, gap.json["reason"]) == ("gap", "link_lost")
            # Told when the subscription stands again: from here on nothing is missed.
            await client.send(f"/topic/{name}", "after")
            assert (await stream.next()).data == "after"


async def test_sse_case_53_an_error_for_one_subscription_ends_its_streams_only(
    scripted_peer: ScriptedPeer, tmp_path: Path
) -> None:
    async with before(scripted_peer, tmp_path) as gateway:
        ended = [await RecordedSse.open(gateway.port, "/mq/mq/Topics/a/events") for _ in range(2)]
        connection, one = await scripted_peer.frame_from("SUBSCRIBE")
        other = await Sse.open(gateway.port, "/mq/mq/Topics/b/events")
        two = await scripted_peer.frame("SUBSCRIBE")
        await connection.message(one["id"], b"last")
        await connection.send("ERROR", {"subscription": one["id"], "message": "cancelled"}, b"the queue is gone")
        for stream in ended:
            assert [event.data for event in await stream.rest()] == ["last"]
            assert stream.blocks[-2].startswith(b"retry: ")
            assert stream.blocks[-1] == b""
        await connection.message(two["id"], b"goes on")
        assert (await other.next()).data == "goes on"
        assert await gateway.metric("mq_gateway_streams_closed_total", reason="cancelled") == 2
        # Whoever comes back is subscribed anew, on the same connection.
        async with await Sse.open(gateway.port, "/mq/mq/Topics/a/events", {"Last-Event-ID": ended[0].last_id}) as back:
            assert (await back.next()).json["reason"] == "restart"
        assert len(scripted_peer.connections) == 1


async def test_sse_case_53_a_queue_deleted_at_the_broker_ends_its_streams_only(
    on_rabbitmq: Target, unique: Unique
) -> None:
    deleted, kept, news = unique("deleted"), unique("kept"), unique("news")
    port, broker = on_rabbitmq.port, on_rabbitmq.broker
    assert isinstance(broker, RabbitMQ)
    await on_rabbitmq.gateway.until_up("mq")
    links = on_rabbitmq.gateway.broker_ports(broker)
    streams = [await RecordedSse.open(port, f"/mq/mq/Queues/{deleted}/events") for _ in range(2)]
    others = [await Sse.open(port, path) for path in (f"/mq/mq/Queues/{kept}/events", f"/mq/mq/Topics/{news}/events")]
    await broker.ctl("delete_queue", deleted)
    for stream in streams:
        assert await stream.rest() == []
        assert stream.blocks[-2].startswith(b"retry: ")
    for path, other in zip((f"/mq/mq/Queues/{kept}", f"/mq/mq/Topics/{news}"), others, strict=True):
        assert (await post(port, path, "goes on")).status == 200
        assert (await other.next()).data == "goes on"
    assert on_rabbitmq.gateway.broker_ports(broker) == links


WIDER = ["%2A", "a.%2A", "%23", "a.%23", "a.%3E", "a%2Cb", "a%3Fconsumer.exclusive%3Dtrue", "%00", "a%0Ab", "a%3A%3Ab"]


@pytest.mark.parametrize("kind", ["Topics", "Queues"])
async def test_sse_case_58_no_name_is_a_pattern(target: Target, kind: str) -> None:
    async with await Http.connect(target.port) as http:
        for name in WIDER:
            for headers in ({}, {"Accept": "text/event-stream"}):
                answer = await http.ask("GET", f"/mq/mq/{kind}/{name}/events", None, headers)
                assert (answer.status, answer.code) == (400, "invalid_name"), name
        # Decoded once, and behind the division into parts.
        for path in (f"/mq/mq/{kind}/../{kind}/a/events", f"/mq/mq/{kind}/a/b/events", f"/mq/mq%2F{kind}/a/events"):
            assert (await http.ask("GET", path)).status in (400, 404), path


async def test_sse_case_58_a_stream_hears_its_own_destination_and_no_other(target: Target, unique: Unique) -> None:
    """Names that a broker or a path might read as more than themselves."""
    name = unique("own")
    odd = [f"{name}/..", f"{name}/../{name}.b", f"{name}/b", f"{name}..b", f"..{name}", f"{name};b", f"{name}%b"]
    streams = {each: await Sse.open(target.port, f"/mq/mq/Topics/{quote(each, safe='')}/events") for each in odd}
    for neighbour in (name, f"{name}.b", f"{name}.", f"{name}.b.c"):
        assert (await post(target.port, f"/mq/mq/Topics/{neighbour}", "not for them")).status == 200
    for each in odd:
        assert (await post(target.port, f"/mq/mq/Topics/{quote(each, safe='')}", each)).status == 200
    for each, stream in streams.items():
        assert (await stream.next()).data == each


async def test_sse_case_35_another_replica_says_gap_and_never_silently_skips(
    target: Target, unique: Unique, tmp_path: Path
) -> None:
    """A position of a plain Topic is of one process; the other one does not guess what it means."""
    name = unique("replicas")
    path = f"/mq/mq/Topics/{name}"
    async with running(write_config(tmp_path, {"mq": stomp(target.broker)})) as replica:
        await replica.until_up("mq")
        async with (
            await Sse.open(target.port, f"{path}/events") as here,
            await Sse.open(replica.port, f"{path}/events") as there,
        ):
            for number in range(5):
                assert (await post(target.port, path, str(number))).status == 200
            seen = await here.take(2)
            await there.take(5)
            # Cut off here after two, and back at the other replica.
            async with await Sse.open(replica.port, f"{path}/events", {"Last-Event-ID": seen[-1].id}) as back:
                gap, *rest = await back.take(6)
                assert (gap.name, gap.json["reason"]) == ("gap", "restart")
                assert [event.data for event in rest] == ["0", "1", "2", "3", "4"]
