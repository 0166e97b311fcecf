"""The answers the HTTP side gives by itself."""

from __future__ import annotations

import json

import pytest

from app.domain.errors import Code
from app.http1.refusal import Refused, answer, full, malformed, message, request_id, too_large, too_slow


def test_a_whole_response() -> None:
    refused = Refused(503, Code.OVERLOADED, "Full.", retriable=True, headers=((b"retry-after", b"5"),))
    raw = message(
        refused,
        default_headers=[(b"date", b"now"), (b"server", b"mq-gateway")],
        headers=[(b"x-request-id", b"mine")],
        instance="/mq",
    )
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"date: now",
        b"server: mq-gateway",
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        b"cache-control: no-store",
        b"x-request-id: mine",
        b"connection: close",
        b"x-content-type-options: nosniff",
        b"cross-origin-resource-policy: same-origin",
        b"content-security-policy: frame-ancestors 'none'",
        b"retry-after: 5",
    ]
    problem = json.loads(body)
    assert problem == {
        "type": "urn:mq-gateway:problem:overloaded",
        "title": "Overloaded",
        "status": 503,
        "detail": "Full.",
        "instance": "/mq",
        "code": "overloaded",
        "retriable": True,
        "request_id": "mine",
    }


@pytest.mark.parametrize(
    ("refused", "status", "code", "retriable", "reason"),
    [
        (malformed("x"), 400, "malformed_request", False, "malformed"),
        (too_large("x"), 431, "headers_too_large", False, "head_too_large"),
        (too_slow(head=True), 400, "malformed_request", True, "slow_head"),
        (too_slow(head=False), 400, "malformed_request", True, "slow_body"),
        (full(), 503, "overloaded", True, "full"),
    ],
)
def test_the_usual_ones(refused: Refused, status: int, code: str, retriable: bool, reason: str) -> None:
    assert (refused.status, refused.code, refused.retriable) == (status, code, retriable)
    assert refused.reason == reason


@pytest.mark.parametrize("value", [b"", b"a b", b"a\n", b"x" * 129, b"\xc3\xa9"])
def test_an_unusable_request_id_is_replaced(value: bytes) -> None:
    first, second = (request_id([(b"x-request-id", value)]) for _ in range(2))
    assert first != second
    assert len(first) == 32


def test_a_usable_request_id_is_kept() -> None:
    assert request_id([(b"a", b"b"), (b"x-request-id", b"A.b_c-1")]) == "A.b_c-1"


@pytest.mark.parametrize(
    ("method", "instance", "outcome"),
    [("POST", "/mq/s/Queues/q", "not_sent"), ("GET", "/mq/s/Queues/q", None), ("POST", "/health/live", None)],
)
def test_a_refused_publish_was_not_sent(method: str, instance: str, outcome: str | None) -> None:
    _, body = answer(malformed("x"), headers=[], instance=instance, method=method)
    assert json.loads(body).get("outcome") == outcome
