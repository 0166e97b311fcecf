"""A gateway for tests: its services, and what is asked of it."""

from __future__ import annotations

from typing import Any

from app.config.settings import Settings
from app.connectors.base import Destination
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from tests.unit.gateway.fakes import FakeConnector

SERVICES: dict[str, Any] = {
    "svc": {
        "mq_type": "Memory",
        "queues": {"jobs": {}, "replies": {}, "raw": {"check_json": False}},
        "topics": {"status": {}, "kept": {"keep": True}},
    },
    "open": {"mq_type": "Memory", "allow_undeclared": True, "required": True},
}
JOBS = "svc::Queues::jobs"


def settings_of(services: dict[str, Any] | None = None, **limits: Any) -> Settings:
    return Settings.model_validate({"services": SERVICES if services is None else services, "limits": limits})


def connector_of(gateway: Gateway, name: str = "svc") -> FakeConnector:
    connector = gateway._registry.connector(name)
    assert isinstance(connector, FakeConnector)
    return connector


def destination_of(gateway: Gateway, text: str = JOBS) -> Destination:
    return gateway.resolve(MqUri.parse(text))


def publication(body: bytes = b"x", **fields: Any) -> Publication:
    return Publication(body=body, **{"message_id": "m-1", **fields})
