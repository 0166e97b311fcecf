"""What the gateway adds to a request: memory, counters, the caller's own id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.config.settings import QueueSettings, Settings
from app.connectors.base import Destination
from app.domain.errors import BodyTooLarge, Draining, NoReply, NotSupportedByBroker, Overloaded
from app.domain.message import Message, Publication
from app.domain.uri import MqUri
from app.gateway import registry
from app.gateway.gateway import Gateway
from tests.unit.gateway.fakes import FakeConnector

JOBS = MqUri.parse("svc::Queues::jobs")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    services = {"svc": {"mq_type": "Memory", "queues": {"jobs": {}}}}
    limits = {"memory_bytes": 1 << 20, "body_bytes": 1 << 20}
    async with Gateway(Settings.model_validate({"services": services, "limits": limits})) as made:
        yield made


def _asked(body: bytes = b"?", **fields: Any) -> Publication:
    return Publication(body=body, message_id="m-1", **fields)


async def _respond(gateway: Gateway, body: bytes) -> Message:
    """One reply to the next request; what the responder saw."""
    consumer = await gateway.create_consumer(str(JOBS))
    request = await consumer.get(5)
    assert request is not None
    reply_to = Destination(MqUri.parse("svc::Queues::any"), QueueSettings(destination=request.headers["reply-to"]))
    reply = Publication(body=body, message_id="r-1", correlation_id=request.headers["correlation-id"])
    await gateway.publish(reply_to, reply, timeout=5)
    await consumer.close()
    return request


@pytest.mark.parametrize("own", ["mine", None])
async def test_the_reply_carries_the_callers_own_id(gateway: Gateway, own: str | None) -> None:
    destination = gateway.resolve(JOBS)
    responding = asyncio.ensure_future(_respond(gateway, b"!" * 1000))
    async with gateway.request(destination, _asked(correlation_id=own), timeout=5) as reply:
        assert reply.body == b"!" * 1000
        request = await responding
        wire = request.headers["correlation-id"]
        assert wire != "mine"
        assert reply.headers["correlation-id"] == (own or wire)
        assert reply.mq_uri == JOBS
        assert gateway._buffered() >= 1000
        assert gateway.budget.reserved == 0
    assert gateway._requests.buffered == 0
    assert gateway.destination_view(destination).published == 1


async def test_what_gets_no_reply_was_published(gateway: Gateway) -> None:
    destination = gateway.resolve(JOBS)
    with pytest.raises(NoReply):
        async with gateway.request(destination, _asked(), timeout=0.05):
            pass
    assert gateway.destination_view(destination).published == 1
    assert gateway.budget.reserved == 0


async def test_a_request_is_checked_and_reserved_as_a_publish(gateway: Gateway) -> None:
    destination = gateway.resolve(JOBS)
    with pytest.raises(BodyTooLarge):
        gateway.request(destination, _asked(b"x" * ((1 << 20) + 1)), timeout=5)
    with gateway.budget.reserve("svc", 900_000), pytest.raises(Overloaded):
        async with gateway.request(destination, _asked(b"x" * 500_000), timeout=5):
            pass
    gateway.draining = True
    with pytest.raises(Draining):
        gateway.request(destination, _asked(), timeout=5)


async def test_who_waits_is_told_before_connections_are_cut_off() -> None:
    services = {"svc": {"mq_type": "Memory", "queues": {"jobs": {}}}}
    async with Gateway(Settings.model_validate({"services": services, "server": {"drain_seconds": 1}})) as gateway:
        asking = gateway.request(gateway.resolve(JOBS), _asked(), timeout=60)
        task = asyncio.ensure_future(asking.__aenter__())
        consumer = await gateway.create_consumer(str(JOBS))
        assert await consumer.get(5) is not None
        await gateway.drain()
        with pytest.raises(NoReply, match="shutting down"):
            await asyncio.wait_for(task, 2)


async def test_a_connector_may_have_no_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "connector_class", lambda _mq_type: FakeConnector)
    services = {"svc": {"mq_type": "Memory", "queues": {"jobs": {}}}}
    async with Gateway(Settings.model_validate({"services": services})) as gateway:
        with pytest.raises(NotSupportedByBroker, match="svc has no queue for replies"):
            async with gateway.request(gateway.resolve(JOBS), _asked(), timeout=5):
                pass
