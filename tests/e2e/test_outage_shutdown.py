"""SIGTERM: what was answered is true, nothing hangs, streams end in order, and the process ends in time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.process import accepts
from tests.e2e.http_client import Http, Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, running, stomp, write_config
from tests.faults.peer import ScriptedPeer

DRAIN = 5
SERVER = {"drain_seconds": DRAIN, "write_timeout": 60}


async def _publish(port: int, path: str, name: int, outcomes: dict[str, str]) -> None:
    """Until the gateway takes no more; what got no answer is `none`."""
    number = 0
    try:
        async with await Http.connect(port) as http:
            while True:
                number += 1
                body = f"{name}-{number}"
                outcomes[body] = "none"
                answer = await http.ask("POST", path, body.encode(), {"Mq-Persistent": "true"})
                outcomes[body] = answer.outcome
                if answer.headers.get("connection") == "close":
                    return
    except (ConnectionError, asyncio.IncompleteReadError):
        return


async def test_behaviour_40_sigterm_under_load(
    broker: Broker, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    jobs, work, news = unique("jobs"), unique("work"), f"/mq/mq/Topics/{unique('news')}"
    client = await stomp_client(broker)
    async with running(write_config(tmp_path, {"mq": stomp(broker)}, server=SERVER)) as gateway:
        await gateway.until_up("mq")
        topics = [await Sse.open(gateway.port, f"{news}/events") for _ in range(20)]
        assert (await post(gateway.port, news, "last words")).status == 200
        # A Queue reader that reads nothing: ten large messages are in hand when the end comes.
        stalled = await Sse.open(gateway.port, f"/mq/mq/Queues/{work}/events", receive_buffer=4096)
        for number in range(20):
            body = b"%d %b" % (number, b"x" * 300_000)
            assert (await post(gateway.port, f"/mq/mq/Queues/{work}", body)).status == 200
        outcomes: dict[str, str] = {}
        publishers = [
            asyncio.create_task(_publish(gateway.port, f"/mq/mq/Queues/{jobs}", name, outcomes)) for name in range(20)
        ]

        async def busy() -> bool:
            return len(outcomes) >= 200

        await eventually(busy, "two hundred publishes")
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        async with asyncio.timeout(DRAIN + 5):
            await asyncio.gather(*publishers)
            for stream in topics:
                rest = await stream.rest()  # a clean last chunk, else this raises
                assert [event.data for event in rest] == ["last words"]
                assert stream.parser.retry is not None
        code = await gateway.ended(DRAIN + 5)
        assert time.monotonic() - begun < DRAIN + 5
        assert code == 0
        stalled.close()

    counted = Counter(outcomes.values())
    assert counted["confirmed"] > 0
    # Everybody who keeps a connection busy is told, and told that it was the last time.
    assert set(counted) <= {"confirmed", "not_sent"}
    subscription = await client.subscribe(f"/queue/{jobs}")
    found: set[str] = set()
    confirmed = {body for body, outcome in outcomes.items() if outcome == "confirmed"}
    while not confirmed <= found:
        found.add((await client.next_message())[1].decode())
    await client.unsubscribe(subscription)
    assert not found & {body for body, outcome in outcomes.items() if outcome == "not_sent"}
    # What the stalled reader held is in the queue again, without a hole at its end.
    await client.subscribe(f"/queue/{work}")
    given_back = []
    while 19 not in given_back:
        given_back.append(int((await client.next_message())[1].split(b" ")[0]))
    assert len(given_back) >= 10
    assert sorted(given_back) == list(range(20 - len(given_back), 20))


async def test_behaviour_40_what_the_broker_sees_of_an_orderly_end(tmp_path: Path) -> None:
    async with ScriptedPeer.listen() as peer:
        service = {"mq_type": "Stomp", "host": peer.host, "port": peer.port, "allow_undeclared": True}
        async with running(write_config(tmp_path, {"mq": service}, server=SERVER)) as gateway:
            await gateway.until_up("mq")
            stream = await Sse.open(gateway.port, "/mq/mq/Queues/work/events")
            subscribed = await peer.frame("SUBSCRIBE")
            peer.script.receipts = False
            pending = asyncio.create_task(post(gateway.port, "/mq/mq/Queues/jobs?timeout=20", b"x"))
            connection, frame = await peer.frame_from("SEND")
            begun = time.monotonic()
            gateway.signal(signal.SIGTERM)

            async def refuses() -> bool:
                return not accepts(gateway.port)

            await eventually(refuses, "the end of listening")
            assert not pending.done(), "what is in flight is waited for"
            peer.script.receipts = True
            await connection.release(frame["receipt"])
            assert (await pending).status == 200
            assert (await peer.frame("UNSUBSCRIBE"))["id"] == subscribed["id"]
            while connection.held:
                await connection.release()
            assert (await peer.frame("DISCONNECT"))["receipt"]
            assert await stream.rest() == []
            assert await gateway.ended(DRAIN + 5) == 0
            assert time.monotonic() - begun < 10
            assert [frame.command for frame in connection.received][-1] == "DISCONNECT"
            assert len(peer.connections) == 1


async def test_sse_case_48_the_retries_of_many_streams_are_spread(tmp_path: Path) -> None:
    async with running(write_config(tmp_path, {"mem": MEMORY}, server=SERVER)) as gateway:
        # Ten do not read until the signal: what does not fit into their sockets is queued in the gateway.
        path = "/mq/mem/Topics/news/events"
        streams = [await Sse.open(gateway.port, path, receive_buffer=4096 if n < 10 else None) for n in range(50)]
        bodies = [f"{number} " + "q" * 20_000 for number in range(30)]
        for body in bodies:
            assert (await post(gateway.port, "/mq/mem/Topics/news", body)).status == 200
        gateway.signal(signal.SIGTERM)
        for events in await asyncio.gather(*(stream.rest() for stream in streams)):
            # What was queued comes first, then the clean end.
            assert [event.data for event in events] == bodies
        retries = [stream.parser.retry or 0 for stream in streams]
        assert min(retries) >= 1000
        assert max(retries) <= 5000
        assert len(set(retries)) > 25
        assert await gateway.ended(DRAIN) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_sse_case_50_a_second_signal_forces(tmp_path: Path, second: signal.Signals) -> None:
    config = write_config(tmp_path, {"mem": MEMORY}, server={**SERVER, "drain_seconds": 60})
    async with running(config, clean=False) as gateway:
        stalled = await Sse.open(gateway.port, "/mq/mem/Topics/news/events", receive_buffer=4096)
        for _ in range(30):
            assert (await post(gateway.port, "/mq/mem/Topics/news", b"x" * 300_000)).status == 200
        gateway.signal()

        async def refuses() -> bool:
            return not accepts(gateway.port)

        await eventually(refuses, "the end of listening")
        assert gateway.popen.poll() is None
        begun = time.monotonic()
        gateway.signal(second)
        assert await gateway.ended(5) == 0
        assert time.monotonic() - begun < 4
        stalled.close()


async def test_not_ready_while_draining_and_readers_are_sent_away(tmp_path: Path) -> None:
    server = {**SERVER, "drain_delay": 1}
    async with running(write_config(tmp_path, {"mem": MEMORY}, server=server)) as gateway:
        async with await Http.connect(gateway.port) as http:
            assert (await http.ask("GET", "/health/ready")).status == 200
            gateway.signal()

            async def unready() -> bool:
                return (await http.ask("GET", "/health/ready")).status == 503

            await eventually(unready, "not ready", 1)
            assert (await http.ask("GET", "/health/live")).status == 200
        assert await gateway.ended(DRAIN + 1 + 5) == 0
