"""POST on a destination, with a gateway that is real and a broker in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.api.context import Context
from app.api.exchange import ClientGone
from app.api.publish import Publish
from app.connectors.base import Destination
from app.domain.errors import (
    BodyTooLarge,
    BrokerRejected,
    Code,
    GatewayError,
    HeadersTooLarge,
    IdempotencyMismatch,
    InvalidHeader,
    Outcome,
)
from app.domain.message import Publication, Published
from app.domain.uri import MqUri
from tests.unit.api.asgi import GONE, Call, piece

JOBS = MqUri.parse("demo::Queues::jobs")


def _counted(context: Context, service: str = "demo", kind: str = "Queues") -> dict[str, float]:
    found = {}
    for outcome in Outcome:
        labels = {"service": service, "type": kind, "outcome": outcome.value}
        value = context.metrics.registry.get_sample_value("mq_gateway_publishes_total", labels)
        if value:
            found[outcome.value] = value
    return found


async def _publish(context: Context, call: Call, uri: MqUri = JOBS) -> Any:
    exchange = call.exchange()
    await Publish(context)(exchange, uri)
    return exchange


@pytest.mark.parametrize(("query", "status", "confirmed"), [(b"", 200, True), (b"confirm=none", 202, False)])
async def test_the_answer_says_what_is_certain(context: Context, query: bytes, status: int, confirmed: bool) -> None:
    call = Call(query=query, receives=[piece(b"hello")])
    exchange = await _publish(context, call)
    assert call.status == status
    assert call.json == {
        "message_id": exchange.access.message_id,
        "mq_uri": "demo::Queues::jobs",
        "confirmed": confirmed,
        "persistent": True,
    }
    assert call.head["content-type"] == "application/json"
    outcome = "confirmed" if confirmed else "unconfirmed"
    assert exchange.access.outcome == outcome
    assert exchange.access.mq_uri == "demo::Queues::jobs"
    assert _counted(context) == {outcome: 1}


@pytest.fixture
def seen(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[Publication]:
    """The publications that reach the gateway."""
    found: list[Publication] = []

    async def publish(
        destination: Destination, publication: Publication, *, timeout: float, confirm: bool
    ) -> Published:
        found.append(publication)
        return Published(message_id=publication.message_id, mq_uri=destination.uri, confirmed=confirm, persistent=False)

    monkeypatch.setattr(context.gateway, "publish", publish)
    return found


@pytest.mark.parametrize(
    ("name", "given", "content_type"),
    [
        ("jobs", [], "application/octet-stream"),
        ("jobs", [(b"content-type", b"application/x-www-form-urlencoded")], "application/octet-stream"),
        ("text", [], "text/plain"),
        ("text", [(b"content-type", b"a/b")], "a/b"),
    ],
)
async def test_the_type_is_the_clients_else_the_destinations(
    context: Context, seen: list[Publication], name: str, given: list[tuple[bytes, bytes]], content_type: str
) -> None:
    await _publish(context, Call(headers=given), MqUri.parse(f"demo::Queues::{name}"))
    assert seen[0].content_type == content_type


async def test_what_the_client_says_is_what_is_published(context: Context, seen: list[Publication]) -> None:
    headers = [
        (b"mq-persistent", b"false"),
        (b"mq-priority", b"3"),
        (b"mq-reply-to", b"demo::Queues::text"),
        (b"mq-header-a", b"b"),
    ]
    await _publish(context, Call(headers=headers, receives=[piece(b"\x00\xff", more=True), piece(b"!")]))
    (publication,) = seen
    assert publication.body == b"\x00\xff!"
    assert publication.persistent is False
    assert publication.priority == 3
    assert publication.reply_to == MqUri.parse("demo::Queues::text")
    assert publication.headers == {"a": "b"}


@pytest.mark.parametrize(
    ("call", "uri", "code"),
    [
        (Call(), "demo::Queues::nope", Code.UNKNOWN_DESTINATION),
        (Call(headers=[(b"content-encoding", b"gzip")]), "demo::Queues::jobs", Code.UNSUPPORTED_ENCODING),
        (Call(headers=[(b"mq-priority", b"10")]), "demo::Queues::jobs", Code.INVALID_HEADER),
        (Call(headers=[(b"mq-header-receipt", b"x")]), "demo::Queues::jobs", Code.INVALID_HEADER),
        (Call(headers=[(b"mq-reply-to", b"other::Queues::replies")]), "demo::Queues::jobs", Code.INVALID_HEADER),
        (Call(headers=[(b"mq-reply-to", b"demo::Queues::nope")]), "demo::Queues::jobs", Code.INVALID_HEADER),
        (Call(query=b"x=1"), "demo::Queues::jobs", Code.INVALID_PARAMETER),
        (Call(receives=[piece(b"x" * 1001)]), "demo::Queues::jobs", Code.BODY_TOO_LARGE),
        (
            Call(headers=[(b"content-type", b"application/json")], receives=[piece(b"{")]),
            "demo::Queues::jobs",
            Code.INVALID_JSON,
        ),
        (Call(headers=[(b"mq-group", b"g")]), "demo::Queues::jobs", Code.NOT_SUPPORTED_BY_BROKER),
        (Call(headers=[(b"mq-delay-ms", b"5")]), "demo::Queues::jobs", Code.NOT_SUPPORTED_BY_BROKER),
        (Call(headers=[(b"idempotency-key", b"k k")]), "demo::Queues::jobs", Code.INVALID_HEADER),
    ],
)
async def test_a_refusal_sent_nothing_and_is_counted_once(context: Context, call: Call, uri: str, code: Code) -> None:
    with pytest.raises(GatewayError) as caught:
        await _publish(context, call, MqUri.parse(uri))
    assert caught.value.code is code
    counted = _counted(context, "unknown" if code is Code.UNKNOWN_DESTINATION else "demo")
    assert counted == {"not_sent": 1}


async def test_json_is_not_looked_at_where_the_destination_says_so(context: Context) -> None:
    call = Call(headers=[(b"content-type", b"application/json")], receives=[piece(b"{")])
    await _publish(context, call, MqUri.parse("demo::Queues::lax"))
    assert call.status == 200


async def test_too_many_or_too_large_headers(context: Context) -> None:
    many = json.dumps({f"h{number}": "x" for number in range(65)}).encode()
    with pytest.raises(HeadersTooLarge, match="at most 64"):
        await _publish(context, Call(headers=[(b"mq-headers", many)]))
    with pytest.raises(HeadersTooLarge, match="8192 bytes"):
        await _publish(context, Call(headers=[(b"mq-header-a", b"x" * 8192)]))
    await _publish(context, Call(headers=[(b"mq-header-a", b"x" * 8191)]))


async def test_the_cap_is_known_before_the_body_is_read(context: Context) -> None:
    call = Call(headers=[(b"content-length", b"1001")], receives=[piece(b"x" * 1001)])
    with pytest.raises(BodyTooLarge):
        await _publish(context, call)
    assert len(call.receives) == 1


async def test_a_client_that_leaves_has_published_nothing(context: Context, seen: list[Publication]) -> None:
    with pytest.raises(ClientGone):
        await _publish(context, Call(receives=[piece(b"half", more=True), GONE]))
    assert not seen
    assert _counted(context) == {"not_sent": 1}


async def test_the_brokers_no_is_counted_as_such(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_args: object, **_options: object) -> Published:
        raise BrokerRejected("queue is full")

    monkeypatch.setattr(context.gateway, "publish", publish)
    with pytest.raises(BrokerRejected):
        await _publish(context, Call())
    assert _counted(context) == {"rejected": 1}


async def test_cancelled_while_the_broker_has_it_is_unknown(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def publish(*_args: object, **_options: object) -> Published:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(context.gateway, "publish", publish)
    task = asyncio.create_task(_publish(context, Call()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _counted(context) == {"unknown": 1}


async def test_what_never_got_here_is_counted_once(context: Context) -> None:
    handler, exchange = Publish(context), Call().exchange()
    handler.refused(exchange)
    handler.refused(exchange)
    assert _counted(context, "unknown", "unknown") == {"not_sent": 1}


async def test_a_reply_to_another_service_says_why(context: Context) -> None:
    with pytest.raises(InvalidHeader, match="where the message goes"):
        await _publish(context, Call(headers=[(b"mq-reply-to", b"other::Queues::replies")]))


async def test_a_repeat_under_a_key_gets_the_same_answer(context: Context) -> None:
    keyed = ((b"idempotency-key", b"order-1"),)
    calls = [Call(headers=keyed, query=query, receives=[piece(b"hello")]) for query in (b"confirm=none", b"")]
    for call in calls:
        exchange = await _publish(context, call)
        assert exchange.access.message_id == "order-1"
    assert [call.status for call in calls] == [202, 202]
    assert calls[0].json == calls[1].json
    assert calls[0].json["message_id"] == "order-1"
    assert context.gateway.destination_view(context.gateway.resolve(JOBS)).published == 1
    with pytest.raises(IdempotencyMismatch):
        await _publish(context, Call(headers=keyed, receives=[piece(b"other")]))
    assert _counted(context) == {"unconfirmed": 2, "not_sent": 1}
