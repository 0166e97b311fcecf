"""What no broker may see is refused, and all the rest passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidHeader,
    InvalidJson,
    InvalidName,
    SchemaViolation,
    UnknownDestination,
)
from app.domain.uri import DestinationType, MqUri
from app.gateway.gateway import Gateway
from tests.unit.gateway.facade import connector_of, destination_of, publication, settings_of
from tests.unit.gateway.fakes import FakeConnector
from tests.unit.wire.test_headers import DANGEROUS

REFUSED: list[tuple[str, dict[str, Any], type[BadRequest]]] = [
    *((f"header {name}", {"headers": {name: "1"}}, InvalidHeader) for name in DANGEROUS),
    *((f"header name {name!r}", {"headers": {name: "1"}}, InvalidHeader) for name in ("", "a:b", "a\nb", "é")),
    *(
        (f"control {code:#x} in {where}", {where: f"a{chr(code)}b"}, InvalidHeader)
        for code in (0, 9, 10, 13, 31, 127, 128, 159, 0xD800)
        for where in ("correlation_id", "type", "group", "message_id", "content_type")
    ),
    *((f"control {code:#x} in a header", {"headers": {"a": chr(code)}}, InvalidHeader) for code in (0, 10, 13, 0x7F)),
    *((f"long {where}", {where: "é" * 128}, InvalidHeader) for where in ("correlation_id", "type", "message_id")),
    *((f"empty {where}", {where: ""}, InvalidHeader) for where in ("correlation_id", "type", "group", "message_id")),
    ("empty content type", {"content_type": ""}, InvalidHeader),
    ("long content type", {"content_type": "a" * 256}, InvalidHeader),
    ("content type in another alphabet", {"content_type": "é"}, InvalidHeader),
    ("65 headers", {"headers": {f"h{number}": "" for number in range(65)}}, InvalidHeader),
    ("a large header", {"headers": {"a": "v" * 8192}}, InvalidHeader),
    ("ttl 0", {"ttl_ms": 0}, InvalidHeader),
    ("negative ttl", {"ttl_ms": -1}, InvalidHeader),
    ("endless ttl", {"ttl_ms": 1 << 32}, InvalidHeader),
    ("negative delay", {"delay_ms": -1}, InvalidHeader),
    ("priority 10", {"priority": 10}, InvalidHeader),
    ("priority -1", {"priority": -1}, InvalidHeader),
    ("reply elsewhere", {"reply_to": MqUri.parse("open::Queues::any")}, InvalidHeader),
    ("reply to nothing", {"reply_to": MqUri.parse("svc::Queues::none")}, UnknownDestination),
    ("reply to two", {"reply_to": MqUri("svc", DestinationType.QUEUES, "replies,jobs")}, InvalidName),
    ("a large body", {"body": b"x" * 1001}, BodyTooLarge),
    ("no JSON", {"body": b"{", "content_type": "application/json"}, InvalidJson),
    ("NaN", {"body": b"NaN", "content_type": "application/x+json; charset=utf-8"}, InvalidJson),
]


@pytest.mark.usefixtures("fake")
async def test_what_no_broker_may_see_is_refused_before_the_wire() -> None:
    async with Gateway(settings_of(body_bytes=1000)) as gateway:
        told = {}
        for name, fields, _error in REFUSED:
            try:
                await gateway.publish(destination_of(gateway), publication(**fields), timeout=1)
            except BadRequest as error:
                told[name] = type(error)
        assert told == {name: error for name, _fields, error in REFUSED}
        assert connector_of(gateway).published == []
        assert gateway.budget.reserved == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"JobID": "1", "ce-type": "é", "traceparent": "00-ab-cd-01"}},
        {"headers": {f"h{number}": "" for number in range(64)}},
        {"correlation_id": "c" * 255, "type": "t", "group": "g", "message_id": "\u00e9" * 127},
        {"ttl_ms": 1, "priority": 0},
        {"ttl_ms": (1 << 32) - 1, "delay_ms": 1, "priority": 9},
        {"reply_to": MqUri.parse("svc::Queues::replies")},
        {"body": b"{}", "content_type": "application/json"},
        {"body": b"{", "content_type": "application/jsonl"},
        {"body": b""},
    ],
)
async def test_what_a_broker_may_see_passes(gateway: Gateway, fields: dict[str, Any]) -> None:
    gateway.admission.check(destination_of(gateway), publication(**fields))


async def test_a_destination_may_take_any_text_as_json(gateway: Gateway) -> None:
    gateway.admission.check(
        destination_of(gateway, "svc::Queues::raw"), publication(b"{", content_type="application/json")
    )


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("configured", "broker", "limit"), [(100, None, 100), (100, 50, 50), (100, 500, 100)])
async def test_the_tighter_bound_counts(
    monkeypatch: pytest.MonkeyPatch, configured: int, broker: int | None, limit: int
) -> None:
    monkeypatch.setattr(FakeConnector, "max_frame", broker)
    gateway = Gateway(settings_of(body_bytes=configured))
    destination = destination_of(gateway)
    assert gateway.admission.body_limit(destination) == limit
    gateway.admission.check(destination, publication(b"x" * limit))
    with pytest.raises(BodyTooLarge, match=f"takes {limit}"):
        gateway.admission.check(destination, publication(b"x" * (limit + 1)))


@pytest.mark.parametrize(
    ("body", "content_type", "refusal"),
    [
        (b'{"JobID": 1}', "application/json", None),
        (b'{"JobID": "1"}', "application/json", SchemaViolation),
        (b'{"JobID": 1}', "application/vnd.job+json; charset=utf-8", None),
        (b"{", "application/json", InvalidJson),
        (b'{"JobID": 1}', "text/plain", SchemaViolation),
    ],
)
async def test_bodies_fit_the_schema_of_their_destination(
    tmp_path: Path, body: bytes, content_type: str, refusal: type[BadRequest] | None
) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"properties": {"JobID": {"type": "integer"}}}', encoding="utf-8")
    services = {"svc": {"mq_type": "Memory", "queues": {"jobs": {"schema": str(file)}}}}
    async with Gateway(settings_of(services)) as gateway:
        publishing = gateway.publish(destination_of(gateway), publication(body, content_type=content_type), timeout=1)
        if refusal is None:
            assert (await publishing).confirmed
        else:
            with pytest.raises(refusal):
                await publishing
