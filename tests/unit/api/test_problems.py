"""The table of errors."""

from __future__ import annotations

import json

import pytest

from app.api.problems import TABLE, answer_for, retry_after_seconds, status_of
from app.domain.errors import (
    BrokerUnavailable,
    Code,
    ConfirmTimeout,
    FieldError,
    GatewayError,
    InvalidHeader,
    MethodNotAllowed,
    Overloaded,
    Unauthenticated,
)


def _all_errors(base: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [base, *(found for child in base.__subclasses__() for found in _all_errors(child))]


def test_every_code_has_a_status() -> None:
    assert set(TABLE) == set(Code)


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_renders(kind: type[GatewayError]) -> None:
    answer = answer_for(kind("why it is so"), instance="/mq/a", request_id="r-1")
    body = json.loads(answer.body)
    assert answer.content_type == b"application/problem+json"
    assert body["status"] == answer.status == status_of(kind("x"))
    assert body["detail"] == "why it is so"
    assert body["instance"] == "/mq/a"
    assert body["request_id"] == "r-1"
    assert body["code"] == kind.code
    assert body["retriable"] is kind.retriable
    assert "outcome" not in body
    assert (b"retry-after" in dict(answer.headers)) is (answer.status in (409, 429, 503))


def test_a_refused_publish_says_what_became_of_it() -> None:
    error = ConfirmTimeout("no RECEIPT within 5 s")
    body = json.loads(answer_for(error, instance="/", request_id="r", outcome="unknown").body)
    assert body["outcome"] == "unknown"
    assert body["status"] == 504


def test_fields_are_listed() -> None:
    error = InvalidHeader("bad", errors=[FieldError("Mq-Priority", "a whole number from 0 to 9")])
    body = json.loads(answer_for(error, instance="/", request_id="r").body)
    assert body["errors"] == [{"where": "Mq-Priority", "message": "a whole number from 0 to 9"}]


@pytest.mark.parametrize(("given", "seconds"), [(None, 2), (0.0, 1), (0.2, 1), (3.1, 4), (60, 60)])
def test_retry_after_is_whole_seconds(given: float | None, seconds: int) -> None:
    error = BrokerUnavailable("down", retry_after=given)
    assert retry_after_seconds(error) == seconds
    assert dict(answer_for(error, instance="/", request_id="r").headers)[b"retry-after"] == b"%d" % seconds


def test_headers_that_belong_to_a_status() -> None:
    not_allowed = answer_for(MethodNotAllowed("no", allow="GET, HEAD"), instance="/", request_id="r")
    assert dict(not_allowed.headers)[b"allow"] == b"GET, HEAD"
    who = answer_for(Unauthenticated("who?"), instance="/", request_id="r")
    assert dict(who.headers)[b"www-authenticate"] == b"Bearer"
    full = answer_for(Overloaded("full"), instance="/", request_id="r")
    assert dict(full.headers)[b"cache-control"] == b"no-store"
