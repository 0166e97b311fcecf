"""Every code a client can meet, over a real socket; and tricks with paths."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.connectors.base import Destination
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    Code,
    ConfirmTimeout,
    ConnectionLost,
    DestinationQuarantined,
    GatewayError,
    Internal,
    Overloaded,
    RateLimited,
    SchemaViolation,
    Unauthenticated,
)
from app.domain.message import Publication, Published
from tests.e2e.http_gateway import Served, serving

JOBS = "/mq/demo/Queues/jobs"
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "retriable", "request_id"}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(limits={"body_bytes": 1000}, allowed_origins=["https://dash.example"]) as running:
        yield running


def _check(response: Any, status: int, code: Code) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code.value
    assert body["status"] == status
    assert body.keys() >= MEMBERS
    assert body["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) is (status in (429, 503))
    return body


CASES: list[tuple[str, str, dict[str, Any], int, Code]] = [
    ("POST", "/mq/demo/Queues/a%2Cb", {}, 400, Code.INVALID_NAME),
    ("POST", JOBS, {"headers": {"mq-header-receipt": "1"}}, 400, Code.INVALID_HEADER),
    ("POST", JOBS, {"headers": {"mq-header-x-stream-offset": "1"}}, 400, Code.INVALID_HEADER),
    ("POST", JOBS, {"headers": {"mq-headers": '{"a\\nreceipt":"1"}'}}, 400, Code.INVALID_HEADER),
    ("POST", JOBS, {"headers": {"mq-headers": '{"a":"b\\ndestination:/queue/x"}'}}, 400, Code.INVALID_HEADER),
    ("POST", JOBS, {"headers": {"mq-headers": '{"Destination":"/queue/x"}'}}, 400, Code.INVALID_HEADER),
    ("POST", JOBS, {"headers": {"mq-priority": "11"}}, 400, Code.INVALID_HEADER),
    ("POST", f"{JOBS}?timeout=soon", {}, 400, Code.INVALID_PARAMETER),
    ("POST", f"{JOBS}?tiemout=1", {}, 400, Code.INVALID_PARAMETER),
    ("GET", f"{JOBS}/events?ack=maybe", {}, 400, Code.INVALID_PARAMETER),
    ("GET", "/mq/demo/Exchanges/x", {}, 400, Code.INVALID_PARAMETER),
    ("GET", "/mq?x=1", {}, 400, Code.INVALID_PARAMETER),
    ("POST", JOBS, {"json": 1, "content": b"{"}, 400, Code.INVALID_JSON),
    ("POST", JOBS, {"headers": {"origin": "https://evil.example"}}, 403, Code.FORBIDDEN),
    ("GET", "/mq", {"headers": {"host": "evil.example"}}, 403, Code.FORBIDDEN),
    ("GET", f"{JOBS}/events", {"headers": {"sec-fetch-mode": "navigate"}}, 403, Code.FORBIDDEN),
    ("POST", "/mq/dem/Queues/jobs", {}, 404, Code.UNKNOWN_SERVICE),
    ("GET", "/mq/dem", {}, 404, Code.UNKNOWN_SERVICE),
    ("POST", "/mq/demo/Queues/job", {}, 404, Code.UNKNOWN_DESTINATION),
    ("GET", "/mq/demo/Topics/jobs/events", {}, 404, Code.UNKNOWN_DESTINATION),
    ("GET", "/mq/demo/Queues/Jobs", {}, 404, Code.UNKNOWN_DESTINATION),
    ("GET", "/favicon.ico", {}, 404, Code.NOT_FOUND),
    ("POST", f"{JOBS}/batch", {}, 400, Code.INVALID_HEADER),
    ("POST", f"{JOBS}/batch/more", {}, 404, Code.NOT_FOUND),
    ("PUT", JOBS, {}, 405, Code.METHOD_NOT_ALLOWED),
    ("PATCH", "/metrics", {}, 405, Code.METHOD_NOT_ALLOWED),
    ("GET", f"{JOBS}/events", {"headers": {"accept": "application/json"}}, 406, Code.NOT_ACCEPTABLE),
    ("POST", JOBS, {"content": b"x" * 1001}, 413, Code.BODY_TOO_LARGE),
    ("POST", JOBS, {"headers": {"content-encoding": "gzip"}}, 415, Code.UNSUPPORTED_ENCODING),
    ("POST", JOBS, {"headers": {"mq-delay-ms": "5"}}, 422, Code.NOT_SUPPORTED_BY_BROKER),
    ("POST", JOBS, {"headers": {"mq-group": "g"}}, 422, Code.NOT_SUPPORTED_BY_BROKER),
    ("POST", JOBS, {"headers": {"idempotency-key": "k k"}}, 400, Code.INVALID_HEADER),
    (
        "POST",
        JOBS,
        {"headers": {"mq-headers": json.dumps({f"h{n}": "x" for n in range(65)})}},
        431,
        Code.HEADERS_TOO_LARGE,
    ),
    ("POST", JOBS, {"headers": {"mq-header-a": "x" * 20_000}}, 431, Code.HEADERS_TOO_LARGE),
]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"), CASES, ids=[f"{case[4]}-{case[0]}-{case[1]}" for case in CASES]
)
async def test_a_client_is_told_what_it_did_wrong(
    served: Served, method: str, path: str, options: dict[str, Any], status: int, code: Code
) -> None:
    if options.pop("json", None):
        options = {**options, "headers": {"content-type": "application/json"}}
    body = _check(await served.client.request(method, path, **options), status, code)
    assert body["retriable"] is False
    if (method == "POST" and path.startswith(f"{JOBS}?")) or (path == JOBS and method == "POST"):
        # What the server itself refuses (431 for the head) knows nothing of publishes.
        assert body.get("outcome", "not_sent") == "not_sent"


FAILURES: list[tuple[GatewayError, int, str, bool]] = [
    (Unauthenticated("who?"), 401, "not_sent", False),
    (SchemaViolation("no"), 422, "not_sent", False),
    (RateLimited("slowly", retry_after=3), 429, "not_sent", True),
    (Internal("a defect"), 500, "unknown", False),
    (BrokerRejected("full"), 502, "rejected", False),
    (BrokerUnavailable("down"), 503, "not_sent", True),
    (Overloaded("full"), 503, "not_sent", True),
    (DestinationQuarantined("rests", retry_after=60), 503, "not_sent", True),
    (ConfirmTimeout("no RECEIPT"), 504, "unknown", True),
    (ConnectionLost("gone"), 504, "unknown", True),
]


@pytest.mark.parametrize(("error", "status", "outcome", "retriable"), FAILURES, ids=[case[0].code for case in FAILURES])
async def test_what_the_broker_does_is_told_exactly(
    served: Served, monkeypatch: pytest.MonkeyPatch, error: GatewayError, status: int, outcome: str, retriable: bool
) -> None:
    async def publish(_destination: Destination, _publication: Publication, **_options: object) -> Published:
        raise error

    monkeypatch.setattr(served.gateway, "publish", publish)
    body = _check(await served.client.post(JOBS, content=b"x"), status, error.code)
    assert (body["outcome"], body["retriable"]) == (outcome, retriable)
    labels = {"service": "demo", "type": "Queues", "outcome": outcome}
    assert served.metric("mq_gateway_publishes_total", **labels) == 1


async def test_draining_is_told_to_publishers_and_readers(served: Served) -> None:
    await served.app.state.gateway_drain()
    body = _check(await served.client.post(JOBS, content=b"x"), 503, Code.DRAINING)
    assert body["outcome"] == "not_sent"
    _check(await served.client.get(f"{JOBS}/events"), 503, Code.DRAINING)
    assert (await served.client.get("/health/ready")).status_code == 503
    assert (await served.client.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    "raw", [b"nonsense\r\n\r\n", b"GET /mq HTTP/1.1\r\n\r\n", b"GET /mq HTTP/9.9\r\nHost: x\r\n\r\n"]
)
async def test_what_is_no_http_gets_a_problem_too(served: Served, raw: bytes) -> None:
    answer = await served.raw(raw)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (b"/mq/demo/Queues/..%2f..%2fhealth%2flive", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/../health/live", 400, Code.INVALID_PARAMETER),
        (b"/health/../mq", 404, Code.NOT_FOUND),
        (b"/mq/demo/Queues/../jobs", 404, Code.NOT_FOUND),
        (b"/mq/demo/Queues/./jobs", 404, Code.NOT_FOUND),
        (b"//mq", 404, Code.NOT_FOUND),
        (b"/mq//demo", 404, Code.NOT_FOUND),
        (b"/mq/demo%2FQueues%2Fjobs", 404, Code.UNKNOWN_SERVICE),
        (b"/mq/demo/Queues/jobs%2Fevents", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/jobs;x=1", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/jobs%3Bx", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/jobs%20", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/jobs%00", 400, Code.INVALID_NAME),
        (b"/mq/demo/Queues/%00", 400, Code.INVALID_NAME),
        (b"/mq/demo/Queues/jobs%0d%0aSEND", 400, Code.INVALID_NAME),
        (b"/mq/demo/Queues/jobs%u0041", 400, Code.INVALID_NAME),
        (b"/mq/demo/Queues/%25", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/%252e%252e%252f", 404, Code.UNKNOWN_DESTINATION),
        (b"/mq/demo/Queues/%E2%80%A8", 400, Code.INVALID_NAME),
        (b"/mq/demo/Queues/jobs?%2Fevents", 400, Code.INVALID_PARAMETER),
        (b"/mq/demo%00/Queues/jobs", 404, Code.UNKNOWN_SERVICE),
    ],
)
async def test_a_path_cannot_be_talked_into_another(served: Served, target: bytes, status: int, code: Code) -> None:
    answer = await served.raw(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (int(head.split()[1]), problem["code"]) == (status, code.value)
    assert problem["instance"] == target.partition(b"?")[0].decode()


async def test_two_spellings_of_a_name_are_one_destination(served: Served) -> None:
    for path in (JOBS, "/mq/demo/queue/%6A%6f%62s", "/mq/%64emo/QUEUES/jobs"):
        assert (await served.client.post(path, content=b"x")).json()["mq_uri"] == "demo::Queues::jobs"
