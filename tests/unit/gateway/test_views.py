"""What `GET /mq` shows."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from app.domain.link import Connections, LinkError, LinkFault, LinkState, LinkStatus
from app.gateway.stream import Counts
from app.gateway.views import destination_view, service_view
from tests.unit.gateway.fakes import FakeConnector, queue

MORE = LinkStatus(
    state=LinkState.DOWN,
    since=0.0,
    broker="RabbitMQ/3.10.8",
    address="192.0.2.1:61613",
    last_error=LinkError(LinkFault.REFUSED, "nobody listens", 1.5),
    next_attempt_at=2.25,
    several=Connections(2, 3),
)


def test_a_destination_has_the_members_of_the_contract() -> None:
    view = destination_view(queue(), 2, Counts(published=3, delivered=4, gaps=5), quarantined=True)
    assert asdict(view) == {
        "mq_uri": "svc::Queues::jobs",
        "readers": 2,
        "leases": 0,
        "published": 3,
        "delivered": 4,
        "gaps": 5,
        "quarantined": True,
    }


async def test_a_service_that_was_never_connected() -> None:
    view = asdict(service_view(FakeConnector(), []))
    assert view == {
        "service": "svc",
        "mq_type": "Memory",
        "link": "connecting",
        "connections": {"up": 0, "of": 1},
        "since": "1970-01-01T00:00:00.000Z",
        "broker": None,
        "address": None,
        "last_error": None,
        "next_attempt_at": None,
        "destinations": [],
        "destinations_omitted": 0,
    }


async def test_a_service_that_is_down_says_why_and_when_it_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeConnector, "status", MORE)
    destination = destination_view(queue(), 0, Counts())
    view = asdict(service_view(FakeConnector(), [destination], 7))
    assert view["link"] == "down"
    assert (view["broker"], view["address"]) == ("RabbitMQ/3.10.8", "192.0.2.1:61613")
    assert view["last_error"] == {"code": "refused", "detail": "nobody listens", "at": "1970-01-01T00:00:01.500Z"}
    assert view["connections"] == {"up": 2, "of": 3}
    assert view["next_attempt_at"] == "1970-01-01T00:00:02.250Z"
    assert (view["destinations"], view["destinations_omitted"]) == ([asdict(destination)], 7)
