"""GET /mq and below."""

from __future__ import annotations

import pytest

from app.api.context import Context
from app.api.look import Look
from app.api.paths import Kind, Route
from app.domain.errors import InvalidParameter, UnknownDestination, UnknownService
from app.domain.uri import MqUri
from tests.unit.api.asgi import Call

DESTINATION = {"mq_uri", "readers", "leases", "published", "delivered", "gaps", "quarantined"}
SERVICE = {
    *("service", "mq_type", "link", "since", "broker", "address", "last_error", "next_attempt_at", "destinations"),
}


async def test_everything(context: Context) -> None:
    call = Call(method="GET")
    await Look(context).services(call.exchange(), Route(Kind.SERVICES))
    assert call.head["cache-control"] == "no-store"
    assert {"instance", "version", "started_at", "services"} <= call.json.keys()
    assert call.json["started_at"].endswith("Z")
    assert [service["service"] for service in call.json["services"]] == ["demo", "other"]


async def test_one_service(context: Context) -> None:
    call = Call(method="GET")
    await Look(context).services(call.exchange(), Route(Kind.SERVICE, service="demo"))
    assert call.json.keys() >= SERVICE
    assert call.json["mq_type"] == "Memory"
    assert {found["mq_uri"] for found in call.json["destinations"]} >= {"demo::Queues::jobs", "demo::Topics::events"}
    with pytest.raises(UnknownService):
        await Look(context).services(Call().exchange(), Route(Kind.SERVICE, service="dem"))


async def test_one_destination(context: Context) -> None:
    call = Call(method="GET")
    exchange = call.exchange()
    await Look(context).destination(exchange, MqUri.parse("demo::Queues::jobs"))
    assert call.json.keys() >= DESTINATION
    assert exchange.access.mq_uri == call.json["mq_uri"] == "demo::Queues::jobs"
    with pytest.raises(UnknownDestination):
        await Look(context).destination(Call().exchange(), MqUri.parse("demo::Queues::nope"))


async def test_views_take_no_parameters(context: Context) -> None:
    with pytest.raises(InvalidParameter):
        await Look(context).services(Call(query=b"x=1").exchange(), Route(Kind.SERVICES))
    with pytest.raises(InvalidParameter):
        await Look(context).destination(Call(query=b"x=1").exchange(), MqUri.parse("demo::Queues::jobs"))
