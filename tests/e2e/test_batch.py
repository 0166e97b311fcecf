"""Batches through a gateway process: any number of lines in constant memory, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers.fixtures import Unique
from tests.e2e.conftest import Target
from tests.e2e.http_client import eventually
from tests.e2e.http_gateway import serving, until
from tests.e2e.live_gateway import running, stomp, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import forget_peak, vitals
from tests.faults.peer import Script, ScriptedPeer

#: Lines of a large batch.
LINES = sized(50_000, 1_000_000)
#: MiB that the memory may grow by while they come.
GROWTH = 32.0
SERVICE: dict[str, Any] = {
    "demo": {"mq_type": "Memory", "queues": {"jobs": {}}, "topics": {"events": {}, "lax": {"check_json": False}}}
}


def _line(number: int, bad_every: int = 0) -> bytes:
    if bad_every and number % bad_every == 0:
        return b"{no json\n"
    return b'{"JobID": %d, "Status": "Running", "Site": "LCG.IN2P3.fr"}\n' % number


async def _lines(count: int, bad_every: int = 0) -> AsyncIterator[bytes]:
    for start in range(0, count, 500):
        yield b"".join(_line(number, bad_every) for number in range(start, min(start + 500, count)))


async def _send(port: int, path: str, content: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=300) as client:
        url = f"http://127.0.0.1:{port}{path}"
        return await client.post(url, content=content, headers={"content-type": "application/x-ndjson", **headers})


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("broker", "bad_every"),
    [(None, 0), (None, 2), pytest.param("rabbitmq", 0, marks=pytest.mark.rabbitmq)],
    ids=["good", "half-bad", "rabbitmq"],
)
async def test_the_memory_does_not_grow_with_the_lines(
    request: pytest.FixtureRequest, tmp_path: Path, unique: Unique, broker: str | None, bad_every: int
) -> None:
    services = SERVICE if broker is None else {"demo": stomp(request.getfixturevalue(broker))}
    async with running(write_config(tmp_path, services)) as gateway:
        await gateway.until_up("demo")
        path = f"/mq/demo/Topics/{'events' if broker is None else unique('lines')}/batch"
        before = vitals(gateway.pid).rss
        forget_peak(gateway.pid)
        began = time.perf_counter()
        response = await _send(gateway.port, path, _lines(LINES, bad_every))
        took = time.perf_counter() - began
        growth = vitals(gateway.pid).peak - before
        print(f"{LINES} lines, {LINES / took:.0f}/s, RSS {before:.1f} MiB, {growth:+.1f} at the most")
        bad = -(-LINES // bad_every) if bad_every else 0
        report = response.json()
        assert response.status_code == (207 if bad else 200)
        assert (report["messages"], report["confirmed"]) == (LINES, LINES - bad)
        assert (len(report["failures"]), report["failures_omitted"]) == (min(bad, 1000), max(0, bad - 1000))
        assert growth < GROWTH


@pytest.mark.timeout(300)
async def test_nor_with_the_length_of_one_line(tmp_path: Path) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b'1\n"'
        for _ in range(sized(64, 1024)):
            yield b"x" * (1 << 20)
        yield b'"\n2\n'

    async with running(write_config(tmp_path, SERVICE)) as gateway:
        path = "/mq/demo/Topics/events/batch"
        before = vitals(gateway.pid).rss
        forget_peak(gateway.pid)
        response = await _send(gateway.port, path, content())
        assert response.status_code == 207
        assert response.json()["outcomes"] == {"confirmed": 2, "not_sent": 1}
        assert response.json()["failures"][0]["code"] == "body_too_large"
        assert vitals(gateway.pid).peak - before < GROWTH


async def test_a_client_that_stops_in_between_has_sent_what_it_sent(tmp_path: Path) -> None:
    async with running(write_config(tmp_path, SERVICE)) as gateway:
        _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = b"POST /mq/demo/Queues/jobs/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n6\r\n1\n2\n3 \r\n")
        await writer.drain()
        labels = {"service": "demo", "type": "Queues", "outcome": "confirmed"}

        async def published() -> bool:
            return await gateway.metric("mq_gateway_publishes_total", **labels) == 2

        async def logged() -> bool:
            return re.search(r"messages\W+2\b.*reason\W+client", gateway.log.read_text()) is not None

        await eventually(published, "two lines published", 10)
        writer.close()
        await eventually(logged, "the line in the log", 10)
        assert await published()


async def test_lines_that_come_too_slowly_end_the_connection(tmp_path: Path) -> None:
    async with running(write_config(tmp_path, SERVICE, server={"idle_timeout": 1})) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = b"POST /mq/demo/Queues/jobs/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert await gateway.metric("mq_gateway_publishes_total", outcome="confirmed") == 1


# With a broker that does as it is told.


def _on(peer: ScriptedPeer) -> dict[str, Any]:
    login = {"hosts": [peer.address], "user": "guest", "password": "secret", "heartbeat_ms": [0, 0]}
    return {"svc": {**login, "queues": {"jobs": {}}}}


@pytest.mark.timeout(300)
async def test_nor_with_lines_that_wait_for_their_receipts(tmp_path: Path) -> None:
    lines = 20_000
    async with ScriptedPeer.listen() as peer, running(write_config(tmp_path, _on(peer))) as gateway:
        await gateway.until_up("svc")
        before = vitals(gateway.pid).rss
        forget_peak(gateway.pid)
        began = time.perf_counter()
        response = await _send(gateway.port, "/mq/svc/Queues/jobs/batch?timeout=60", _lines(lines))
        growth = vitals(gateway.pid).peak - before
        print(f"{lines / (time.perf_counter() - began):.0f}/s, RSS {before:.1f} MiB, {growth:+.1f} at the most")
        assert response.json()["outcomes"] == {"confirmed": lines}
        assert growth < GROWTH


async def test_a_thousand_receipts_are_waited_for_and_no_more_is_read() -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, serving(_on(peer)) as served:
        await until(lambda: served.gateway.service("svc").link == "up")
        taken = 0

        async def content() -> AsyncIterator[bytes]:
            nonlocal taken
            for number in range(6000):
                yield b'{"n": %d, "filling": "%s"}\n' % (number, b"x" * 1000)
                taken += 1

        url = f"http://127.0.0.1:{served.port}/mq/svc/Queues/jobs/batch?timeout=60"
        posting = asyncio.create_task(
            served.client.post(url, content=content(), headers={"content-type": "application/x-ndjson"}, timeout=60)
        )
        connection = await peer.connection()
        await until(lambda: peer.count("SEND") == 1000)
        await peer.none("SUBSCRIBE", 0.3)  # time in which more could come
        assert peer.count("SEND") == 1000
        assert served.metric("mq_gateway_in_flight", service="svc") == 1000
        assert taken < 6000  # the rest is still with the client, and in the buffers of the kernel
        peer.script.receipts = True
        await connection.release()
        response = await posting
        assert response.json()["confirmed"] == 6000
        assert _numbers(peer) == list(range(6000))


async def test_a_smaller_window_of_the_service_is_waited_for_and_the_order_kept() -> None:
    async with (
        ScriptedPeer.listen() as peer,
        serving(_on(peer), limits={"in_flight": 7, "memory_bytes": 1 << 20}) as served,
    ):
        await until(lambda: served.gateway.service("svc").link == "up")
        body = b"".join(b'{"n": %d, "filling": "%s"}\n' % (number, b"x" * 100_000) for number in range(100))
        response = await served.client.post(
            "/mq/svc/Queues/jobs/batch", content=body, headers={"content-type": "application/x-ndjson"}
        )
        assert response.json()["outcomes"] == {"confirmed": 100}
        assert _numbers(peer) == list(range(100))


def _numbers(peer: ScriptedPeer) -> list[int]:
    return [json.loads(frame.body)["n"] for _, frame in peer.received if frame.command == "SEND"]


async def test_the_order_is_kept_by_a_broker_that_reads_now_and_then() -> None:
    async with ScriptedPeer.listen() as peer, serving(_on(peer)) as served:
        await until(lambda: served.gateway.service("svc").link == "up")
        connection = await peer.connection()
        connection.stop_reading()
        body = b"".join(b'{"n": %d, "filling": "%s"}\n' % (number, b"x" * 7_000) for number in range(3000))
        posting = asyncio.create_task(
            served.client.post(
                "/mq/svc/Queues/jobs/batch?timeout=30",
                content=body,
                headers={"content-type": "application/x-ndjson"},
                timeout=60,
            )
        )
        await until(lambda: served.metric("mq_gateway_in_flight", service="svc") == 1000)
        for _ in range(20):
            connection.resume_reading()
            await asyncio.sleep(0.005)
            connection.stop_reading()
            await asyncio.sleep(0.005)
        connection.resume_reading()
        assert (await posting).json()["outcomes"] == {"confirmed": 3000}
        assert _numbers(peer) == list(range(3000))


async def test_the_order_is_kept_by_a_link_that_comes_up_meanwhile() -> None:
    async with ScriptedPeer.listen(Script(connected=None)) as peer, serving(_on(peer)) as served:
        await peer.frame("CONNECT")
        body = b"".join(b'{"n": %d}\n' % number for number in range(3000))
        posting = asyncio.create_task(
            served.client.post(
                "/mq/svc/Queues/jobs/batch", content=body, headers={"content-type": "application/x-ndjson"}
            )
        )
        await until(lambda: served.metric("mq_gateway_in_flight", service="svc") == 1000)
        await (await peer.connection()).send("CONNECTED", {"version": "1.2"})
        assert (await posting).json()["outcomes"] == {"confirmed": 3000}
        assert _numbers(peer) == list(range(3000))


async def test_after_a_cut_the_rest_is_read_and_not_sent() -> None:
    async with ScriptedPeer.listen(Script(receipts=False)) as peer, serving(_on(peer)) as served:
        await until(lambda: served.gateway.service("svc").link == "up")

        async def content() -> AsyncIterator[bytes]:
            yield b"0\n1\n2\n"
            await peer.frames("SEND", 3)
            connection = await peer.connection()
            await connection.release(connection.held[0])
            connection.close()
            await peer.connection(2)
            yield b"3\n" * 2000

        response = await served.client.post(
            "/mq/svc/Queues/jobs/batch", content=content(), headers={"content-type": "application/x-ndjson"}
        )
        assert response.status_code == 207
        report = response.json()
        assert report["outcomes"] == {"confirmed": 1, "not_sent": 2000, "unknown": 2}
        assert [failure["code"] for failure in report["failures"][:3]] == [
            "connection_lost",
            "connection_lost",
            "broker_unavailable",
        ]
        assert report["failures_omitted"] == 1002
        assert peer.count("SEND") == 3


# On the real brokers.


@pytest.mark.parametrize("query", ["", "?atomic=true"], ids=["each", "atomic"])
async def test_a_batch_arrives_in_its_order(target: Target, query: str, unique: Unique) -> None:
    queue = unique("batch")
    body = b"".join(b'{"n": %d}\n' % number for number in range(1000))
    response = await _send(target.port, f"/mq/mq/Queues/{queue}/batch{query}", body)
    assert response.status_code == 200, response.text
    assert response.json()["confirmed"] == 1000
    got = []
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("GET", f"http://127.0.0.1:{target.port}/mq/mq/Queues/{queue}/events") as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                got.append(json.loads(line.removeprefix("data: "))["n"])
                if len(got) == 1000:
                    break
    assert got == list(range(1000))


async def test_an_atomic_batch_with_one_that_is_too_large_sends_nothing(target: Target, unique: Unique) -> None:
    queue = unique("batch")
    body = b"1\n2\n" + b'"' + b"x" * 5_000_000 + b'"\n'
    response = await _send(target.port, f"/mq/mq/Queues/{queue}/batch?atomic=true", body)
    assert response.status_code == 400
    assert response.json()["outcomes"] == {"not_sent": 3}
    response = await _send(target.port, f"/mq/mq/Queues/{queue}/batch?atomic=true", b"3\n")
    assert response.json()["confirmed"] == 1
