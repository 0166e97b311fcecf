"""Workers that take messages over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.http_client import eventually
from tests.e2e.http_gateway import PATIENCE, Served, serving, until
from tests.e2e.live_gateway import MEMORY, running, write_config

JOBS = "/mq/demo/Queues/jobs"
OCTETS = {"accept": "application/octet-stream"}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(limits={"receive_linger": 0.2, "lease_max": 60}) as running:
        yield running


async def put(served: Served, *bodies: bytes) -> None:
    for body in bodies:
        assert (await served.client.post(JOBS, content=body)).status_code == 200


async def receive(served: Served, query: str = "wait=5") -> list[dict[str, Any]]:
    response = await served.client.post(f"{JOBS}/receive?{query}")
    if response.status_code == 204:
        assert response.content == b""
        return []
    assert response.status_code == 200, response.text
    messages: list[dict[str, Any]] = response.json()["messages"]
    return messages


async def say(served: Served, verb: str, *leases: str, **members: Any) -> httpx.Response:
    return await served.client.post(f"{JOBS}/{verb}", json={"leases": leases, **members})


def results(response: httpx.Response) -> list[str]:
    return [one["result"] for one in response.json()["results"]]


async def test_workers_share_a_queue_and_lose_nothing(served: Served) -> None:
    bodies = [b"%d" % number for number in range(200)]
    await put(served, *bodies)
    done: list[str] = []

    async def work(most: int) -> None:
        while messages := await receive(served, f"max={most}&wait=1"):
            response = await say(served, "ack", *(one["lease"] for one in messages))
            assert response.status_code == 200
            done.extend(one["body"] for one in messages)

    async with asyncio.timeout(4 * PATIENCE):
        await asyncio.gather(work(1), work(10), work(100))
    assert sorted(done) == sorted(body.decode() for body in bodies)
    assert served.metric("mq_gateway_leases", service="demo") == 0
    assert served.metric("mq_gateway_leases_ended_total", service="demo", reason="acked") == 200
    assert (await served.client.get(JOBS)).json()["delivered"] == 200


async def test_a_connection_lives_on_after_every_kind_of_answer(served: Served) -> None:
    """One connection, one request after the other: a 204 has no body, and raw bodies end where they end."""
    requests = [
        f"POST {JOBS}/receive HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        f"POST {JOBS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{{}}",
        f"POST {JOBS}/receive?wait=5 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/octet-stream\r\n\r\n",
        f"POST {JOBS}/ack?lease=x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    ]
    said = await served.raw("".join(requests).encode())
    assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"204", b"200", b"200", b"207", b"200"]


async def test_the_body_itself_is_byte_for_byte(served: Served) -> None:
    body = bytes(range(256)) * 8000
    await served.client.post(
        JOBS, content=body, headers={"content-type": "image/x", "mq-headers": r'{"JobID":"\u00e9"}'}
    )
    response = await served.client.post(f"{JOBS}/receive?wait=5&lease=60", headers=OCTETS)
    assert response.content == body
    assert response.headers["content-type"] == "image/x"
    assert json.loads(response.headers["mq-headers"])["JobID"] == "é"
    lease = response.headers["mq-lease"]
    response = await served.client.post(f"{JOBS}/ack", params={"lease": lease})
    assert (response.status_code, results(response)) == (200, ["done"])


async def test_sse_case_64_answers_given_twice_and_unknown_ones(served: Served) -> None:
    await put(served, b"1", b"2")
    first, second = (one["lease"] for one in await receive(served, "max=2&wait=5"))
    response = await say(served, "ack", first, first[:-1] + ("A" if first[-1] != "A" else "B"), "nonsense", first)
    assert (response.status_code, results(response)) == (207, ["done", "unknown", "unknown", "done"])
    response = await served.client.post("/mq/demo/Queues/lax/ack", json={"leases": [second]})
    assert results(response) == ["unknown"]
    assert results(await say(served, "ack", second)) == ["done"]
    assert results(await say(served, "nack", second)) == ["expired"]


async def test_what_is_not_done_comes_again(served: Served) -> None:
    await put(served, b"1")
    (one,) = await receive(served)
    assert not one["redelivered"]
    assert (await say(served, "nack", one["lease"], delay=0)).status_code == 200
    (again,) = await receive(served)
    assert (again["message_id"], again["redelivered"]) == (one["message_id"], True)
    assert results(await say(served, "ack", one["lease"])) == ["expired"]
    assert results(await say(served, "ack", again["lease"])) == ["done"]


async def test_a_lease_that_runs_out_comes_again_and_a_renewed_one_does_not(served: Served) -> None:
    await put(served, b"renewed", b"forgotten")
    renewed, forgotten = await receive(served, "max=2&wait=5&lease=1")
    response = await say(served, "renew", renewed["lease"], lease=60)
    assert response.json()["results"][0]["lease_expires_at"] > renewed["lease_expires_at"]
    (again,) = await receive(served, "max=2&wait=10")
    assert again["message_id"] == forgotten["message_id"]
    assert again["redelivered"]
    assert results(await say(served, "ack", renewed["lease"], forgotten["lease"])) == ["done", "expired"]


async def test_a_client_that_leaves_a_long_poll_takes_nothing_with_it(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"POST {JOBS}/receive?wait=20 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await writer.drain()
    takers = served.gateway.takings._takers
    await until(lambda: any(taker.lanes for taker in takers.values()))
    writer.close()
    await until(lambda: not any(taker._waiting for taker in takers.values()))
    await put(served, b"1")
    assert len(await receive(served)) == 1
    assert await reader.read() == b""


async def test_a_parked_message_is_there_for_other_consumers(served: Served) -> None:
    """It waits here for `receive_linger`, and then for everybody at the broker."""
    await put(served, b"1", b"2")
    (first,) = await receive(served)
    await say(served, "ack", first["lease"])
    async with served.stream(f"{JOBS}/events") as events:
        message = await events.message()
        assert message.data == "2"


async def test_the_drain_answers_who_waits_and_takes_last_answers(served: Served) -> None:
    await put(served, b"1")
    (one,) = await receive(served)
    waits = asyncio.ensure_future(served.client.post(f"{JOBS}/receive?wait=20"))
    takers = served.gateway.takings._takers
    await until(lambda: any(taker._waiting for taker in takers.values()))
    await served.gateway.drain()
    assert (await waits).status_code == 204
    assert results(await say(served, "ack", one["lease"])) == ["done"]
    refused = await served.client.post(f"{JOBS}/receive")
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert "outcome" not in refused.json()


async def test_what_a_page_from_elsewhere_may_not(served: Served) -> None:
    await put(served, b"1")
    foreign = {"origin": "http://evil.example"}
    assert (await served.client.post(f"{JOBS}/receive", headers=foreign)).status_code == 403
    assert len(await receive(served)) == 1
    topic = await served.client.post("/mq/demo/Topics/events/receive")
    assert (topic.status_code, topic.headers["allow"], topic.json()["code"]) == (405, "", "method_not_allowed")
    assert served.metric("mq_gateway_publishes_total", service="unknown", type="unknown", outcome="not_sent") == 0


async def test_a_process_that_is_told_to_stop_keeps_nobody_waiting(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"mem": MEMORY})
    async with running(config) as gateway:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=PATIENCE) as client:
            waits = asyncio.ensure_future(client.post("/mq/mem/Queues/jobs/receive?wait=20"))

            async def waiting() -> bool:
                return await gateway.metric("mq_gateway_leases", service="mem") == 0 and not waits.done()

            await eventually(waiting, "a request that waits")
            await asyncio.sleep(0.3)  # it is on its way into the process, which tells nobody
            started = asyncio.get_running_loop().time()
            gateway.signal(signal.SIGTERM)
            assert (await waits).status_code == 204
        assert await gateway.ended(10) == 0
        assert asyncio.get_running_loop().time() - started < 5


# Event streams whose events are leases.


async def test_sse_case_64_events_of_a_stream_are_answered_one_by_one(served: Served) -> None:
    await put(served, *(b"%d" % number for number in range(15)))
    async with served.stream(f"{JOBS}/events?ack=explicit") as events:
        first = await events.message()
        assert first.event == "lease"
        assert first.json == {"ack_url": f"{JOBS}/ack", "prefetch": 10, "lease_seconds": 30}
        got = [await events.message() for _ in range(10)]
        assert [event.data for event in got] == [str(number) for number in range(10)]
        leases = [event.id or "" for event in got]
        assert served.metric("mq_gateway_leases", service="demo") == 10
        response = await served.client.post(first.json["ack_url"], json={"leases": leases[:5]})
        assert (response.status_code, results(response)) == (200, ["done"] * 5)
        more = [await events.message() for _ in range(5)]
        assert [event.data for event in more] == [str(number) for number in range(10, 15)]
        assert results(await say(served, "ack", leases[0], "nonsense")) == ["done", "unknown"]
        assert results(await say(served, "nack", leases[9], delay=0)) == ["done"]
        again = await events.message()
        assert (again.data, again.id != leases[9]) == ("9", True)
    await until(lambda: served.metric("mq_gateway_leases", service="demo") == 0)
    assert results(await say(served, "ack", leases[8])) == ["expired"]
    left = await receive(served, "max=20&wait=5&ack=auto")
    assert sorted(int(one["body"]) for one in left) == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert all(one["redelivered"] for one in left)


async def test_sse_case_66_who_does_not_answer_loses_the_lease(served: Served) -> None:
    """A frozen tab: its stream is open, and it says nothing. Its messages go on to who answers."""
    async with served.stream(f"{JOBS}/events?ack=explicit&lease=1") as frozen:
        assert (await frozen.message()).event == "lease"
        await put(served, b"work")
        lease = (await frozen.message()).id or ""
        async with served.stream(f"{JOBS}/events?ack=auto") as awake:
            # In turns: at worst it comes to the frozen one once more in between.
            assert (await awake.message()).data == "work"
        assert results(await say(served, "ack", lease)) == ["expired"]
        assert [event.retry is not None for event in await frozen.rest()] == [True]


@pytest.mark.parametrize("path", [f"{JOBS}/events?lease=5", "/mq/demo/Topics/events/events?ack=explicit"])
async def test_explicit_acks_are_for_queues_and_never_ignored(served: Served, path: str) -> None:
    refused = await served.client.get(path)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


async def test_the_ack_url_is_where_the_client_sees_it() -> None:
    async with serving(root_path="/gw") as served, served.stream(f"/gw{JOBS}/events?ack=explicit") as events:
        assert (await events.message()).json["ack_url"] == f"/gw{JOBS}/ack"
