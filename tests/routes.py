"""Every kind of resource by its path, as the OpenAPI document writes it; a kind that is added is to be added here."""

from __future__ import annotations

from collections.abc import Mapping

from app.api.paths import Kind

_DESTINATION = "/mq/{service}/{type}/{name}"

PATHS: Mapping[Kind, str] = {
    Kind.SERVICES: "/mq",
    Kind.SERVICE: "/mq/{service}",
    Kind.DESTINATION: _DESTINATION,
    Kind.EVENTS: f"{_DESTINATION}/events",
    Kind.JOINT_EVENTS: "/events",
    Kind.RECEIVE: f"{_DESTINATION}/receive",
    Kind.ACK: f"{_DESTINATION}/ack",
    Kind.NACK: f"{_DESTINATION}/nack",
    Kind.RENEW: f"{_DESTINATION}/renew",
    Kind.BATCH: f"{_DESTINATION}/batch",
    Kind.REQUEST: f"{_DESTINATION}/request",
    Kind.SESSION: "/session",
    Kind.TICKET: "/ticket",
}
