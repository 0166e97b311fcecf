"""Publishing over real sockets, from the head of the request to what a consumer sees."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.e2e.http_gateway import PATIENCE, Served, serving, until
from tests.faults.peer import Script, ScriptedPeer

JOBS = "/mq/demo/Queues/jobs"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(limits={"body_bytes": 200_000}) as running:
        yield running


async def _envelope(served: Served, path: str) -> Any:
    """The next message of a destination, with everything known of it."""
    async with served.stream(f"{path}/events?format=envelope") as events:
        return (await events.message()).json


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"content-type": "application/json"}, b'{"a": 1.0}', {"body": {"a": 1.0}, "body_encoding": "json"}),
        ({"content-type": "application/ld+json; x=y"}, b"[]", {"body": [], "body_encoding": "json"}),
        ({"content-type": "text/plain"}, "é\r\n\x00".encode(), {"body": "é\r\n\x00", "body_encoding": "text"}),
        ({}, b"\xff\x00", {"body": "/wA=", "body_encoding": "base64", "content_type": "application/octet-stream"}),
        ({}, b"", {"body": "", "body_encoding": "text"}),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=b", {"content_type": "application/octet-stream"}),
        ({"mq-header-jobid": "7", "mq-headers": '{"Site":"é"}'}, b"x", {"headers": {"jobid": "7", "Site": "é"}}),
        ({"traceparent": "00-ab-cd-01", "ce-id": "1"}, b"x", {"headers": {"traceparent": "00-ab-cd-01", "ce-id": "1"}}),
    ],
)
async def test_a_message_arrives_as_it_was_sent(
    served: Served, headers: dict[str, str], body: bytes, expected: dict[str, Any]
) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    response = await served.client.post(JOBS, content=body, headers=sent)
    assert response.status_code == 200, response.text
    message = await _envelope(served, JOBS)
    own = expected.pop("headers", {})
    assert {name: message[name] for name in expected} == expected
    assert own.items() <= message["headers"].items()
    assert message["message_id"] == response.json()["message_id"]
    assert message["mq_uri"] == "demo::Queues::jobs"


async def test_a_slash_in_a_name_is_part_of_it(served: Served) -> None:
    response = await served.client.post("/mq/demo/Queues/a%2Fb", content=b"x")
    assert response.json()["mq_uri"] == "demo::Queues::a/b"
    assert (await _envelope(served, "/mq/demo/queue/a%2fb"))["mq_uri"] == "demo::Queues::a/b"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 199_999, 200_000])
async def test_bodies_up_to_the_cap_arrive_whole(served: Served, size: int) -> None:
    body = b"x" * size
    assert (await served.client.post(JOBS, content=body)).status_code == 200
    assert (await _envelope(served, JOBS))["body"] == body.decode()


async def test_a_chunked_body_arrives_whole(served: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"%d" % number * 1000

    assert (await served.client.post(JOBS, content=chunks())).status_code == 200
    assert (await _envelope(served, JOBS))["body"] == "".join(str(number) * 1000 for number in range(10))


async def test_a_length_above_the_cap_is_refused_without_reading(served: Served) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200001\r\nExpect: 100-continue\r\n\r\n"
    answer = await served.raw(head % JOBS.encode())
    # No 100 Continue: the client need not send what nobody will read.
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"outcome":"not_sent"' in answer
    assert b"connection: close" in answer


async def test_a_chunked_body_is_refused_where_it_crosses_the_cap(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % JOBS.encode())
    chunk = b"%x\r\n%b\r\n" % (65_536, b"x" * 65_536)
    for _ in range(4):  # and then never an end
        writer.write(chunk)
    await writer.drain()
    async with asyncio.timeout(PATIENCE):
        assert b" 413 " in await reader.readline()
        assert b'"code":"body_too_large"' in await reader.read()
    writer.close()
    assert served.metric("mq_gateway_publishes_total", service="demo", type="Queues", outcome="not_sent") == 1


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\n12345", b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"]
)
async def test_half_a_body_is_never_published(served: Served, framing: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b" % (JOBS.encode(), framing))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    labels = {"service": "demo", "type": "Queues", "outcome": "not_sent"}
    await until(lambda: served.metric("mq_gateway_publishes_total", **labels))
    assert (await served.client.get(JOBS)).json()["published"] == 0


async def test_one_connection_carries_good_and_bad_requests(served: Served) -> None:
    good = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx" % JOBS.encode()
    bad = b"POST /mq/demo/Queues/a* HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    last = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = await served.raw(good + bad + good + last)
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
    assert statuses == [b"200", b"400", b"200", b"200"]


async def test_a_request_id_goes_round(served: Served) -> None:
    response = await served.client.post(JOBS, content=b"x", headers={"x-request-id": "job-77.a_b"})
    assert response.headers["x-request-id"] == "job-77.a_b"
    made = [(await served.client.post(JOBS, content=b"x")).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]


async def test_persistence_is_the_destinations_unless_asked(served: Served) -> None:
    async def persistent(path: str, **headers: str) -> bool:
        answer = (await served.client.post(path, content=b"x", headers=headers)).json()
        return bool(answer["persistent"])

    assert await persistent(JOBS)
    assert not await persistent("/mq/demo/Topics/events")
    assert not await persistent(JOBS, **{"mq-persistent": "false"})
    assert await persistent("/mq/demo/Topics/events", **{"mq-persistent": "true"})


async def test_behaviour_02_unconfirmed_says_so(served: Served) -> None:
    response = await served.client.post(f"{JOBS}?confirm=none", content=b"x")
    assert response.status_code == 202
    assert response.json()["confirmed"] is False
    assert (await _envelope(served, JOBS))["message_id"] == response.json()["message_id"]


async def test_every_publish_is_counted_once(served: Served) -> None:
    await served.client.post(JOBS, content=b"x")
    await served.client.post(JOBS, content=b"{", headers={"content-type": "application/json"})
    await served.client.post("/mq/demo/Queues/nope", content=b"x")
    text = (await served.client.get("/metrics")).text
    counted = [line for line in text.splitlines() if line.startswith("mq_gateway_publishes_total{")]
    assert sorted(counted) == [
        'mq_gateway_publishes_total{outcome="confirmed",service="demo",type="Queues"} 1.0',
        'mq_gateway_publishes_total{outcome="not_sent",service="demo",type="Queues"} 1.0',
        'mq_gateway_publishes_total{outcome="not_sent",service="unknown",type="Queues"} 1.0',
    ]
    assert 'mq_gateway_publish_seconds_count{service="demo",type="Queues"} 2.0' in text


async def test_a_hundred_at_once_are_all_told_apart(served: Served) -> None:
    responses = await asyncio.gather(*(served.client.post(JOBS, content=b"%d" % n) for n in range(100)))
    ids = {response.json()["message_id"] for response in responses}
    assert len(ids) == 100
    assert (await served.client.get(JOBS)).json()["published"] == 100


async def test_json_is_checked_to_the_last_byte(served: Served) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"", b"{", b'{"a":1}x', b"NaN", b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b"'a'"):
        response = await served.client.post(JOBS, content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_json"), body
    deep = b"[" * 500 + b"]" * 500
    for body in (b"0", b"null", b' {"a":1} ', json.dumps({"x": "\ud800"}).encode(), deep):
        assert (await served.client.post(JOBS, content=body, headers=headers)).status_code == 200, body
    lax = await served.client.post("/mq/demo/Queues/lax", content=b"{", headers=headers)
    assert lax.status_code == 200


async def test_a_key_makes_a_repeat_safe(served: Served) -> None:
    headers = {"idempotency-key": "order-1!~", "content-type": "application/json"}
    answers = [await served.client.post(JOBS, content=b"{}", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert (await _envelope(served, JOBS))["message_id"] == "order-1!~" == answers[0].json()["message_id"]
    assert (await served.client.get(JOBS)).json()["published"] == 1
    other = await served.client.post(JOBS, content=b"[]", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert other.json()["outcome"] == "not_sent"


async def test_a_key_at_a_broker_that_does_not_confirm() -> None:
    script = Script(receipts=False)
    async with ScriptedPeer.listen(script) as peer:
        services = {"mq": {"mq_type": "Stomp", "hosts": [peer.address], "queues": {"jobs": {}}}}
        async with serving(services) as served:
            path, headers = "/mq/mq/Queues/jobs", {"idempotency-key": "order-1"}

            def post(seconds: float = 5, body: bytes = b"x") -> asyncio.Task[httpx.Response]:
                request = served.client.post(f"{path}?timeout={seconds}", content=body, headers=headers)
                return asyncio.ensure_future(request)

            unknown = await post(0.3)
            assert (unknown.status_code, unknown.json()["code"]) == (504, "confirm_timeout")
            first = await peer.frame("SEND")
            under_way = post()
            connection, second = await peer.frame_from("SEND")
            assert first["mq-message-id"] == second["mq-message-id"] == "order-1"
            refused = await post()
            assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_in_progress")
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["retriable"]
            assert (await post(body=b"y")).json()["code"] == "idempotency_mismatch"
            await connection.release(second["receipt"])
            assert (await under_way).json()["message_id"] == "order-1"
            assert (await post()).json() == (await under_way).json()
            assert peer.count("SEND") == 2
