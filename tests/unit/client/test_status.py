"""What a gateway says of itself, for people."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.client.connection import ClientError, Target
from app.client.status import fetch, in_words

DOWN: dict[str, Any] = {
    "service": "grid",
    "mq_type": "Stomp",
    "link": "connecting",
    "connections": {"up": 0, "of": 1},
    "since": "2030-01-02T03:04:05.000Z",
    "broker": None,
    "address": None,
    "last_error": {"code": "refused", "detail": "nobody\x1b[31m listens", "at": "2030-01-02T03:04:05.000Z"},
    "next_attempt_at": "2030-01-02T03:04:06.000Z",
    "destinations": [],
    "destinations_omitted": 0,
}
COUNTS = {"readers": 1, "leases": 2, "published": 3, "delivered": 4, "gaps": 5, "quarantined": True}
UP = {
    **DOWN,
    "link": "up",
    "connections": {"up": 1, "of": 1},
    "broker": "RabbitMQ/4.1",
    "address": "a:61613",
    "destinations": [{"mq_uri": "grid::Queues::jobs", **COUNTS}],
    "destinations_omitted": 7,
}


def test_what_is_down_says_why_and_steers_no_terminal() -> None:
    answer = {"instance": "i", "version": "1", "started_at": "t", "draining": False, "services": [DOWN]}
    assert in_words(answer).splitlines() == [
        "mq-gateway 1, instance i, since t",
        "SERVICE  LINK        CONNECTIONS  BROKER  ADDRESS  SINCE",
        "grid     connecting  0 of 1       -       -        2030-01-02T03:04:05.000Z",
        "grid: refused: nobody [31m listens; tried again at 2030-01-02T03:04:06.000Z",
    ]


def test_what_is_up_says_nothing_of_what_is_over() -> None:
    assert in_words(UP).splitlines() == [
        "SERVICE  LINK  CONNECTIONS  BROKER        ADDRESS  SINCE",
        "grid     up    1 of 1       RabbitMQ/4.1  a:61613  2030-01-02T03:04:05.000Z",
        "",
        "DESTINATION                       READERS  LEASES  PUBLISHED  DELIVERED  GAPS",
        "grid::Queues::jobs (quarantined)  1        2       3          4          5",
        "7 more in use are not shown",
    ]


def test_one_who_sees_nothing_is_told_of_nothing() -> None:
    assert in_words({"draining": True, "services": []}) == "mq-gateway -, instance -, draining"


@pytest.mark.parametrize("service", [None, "a/b"])
def test_who_is_no_gateway_is_told_from_one(monkeypatch: pytest.MonkeyPatch, service: str | None) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        assert request.headers["authorization"] == "Bearer t"
        return httpx.Response(200, json=[])

    def scripted(target: Target, _timeout: float) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer), headers=target.headers())

    monkeypatch.setattr(Target, "open", scripted)
    with pytest.raises(ClientError, match="not an answer of mq-gateway"):
        fetch(Target("http://gateway/prefix/", "t"), service)
    assert asked == [b"/prefix/mq" if service is None else b"/prefix/mq/a%2Fb"]
