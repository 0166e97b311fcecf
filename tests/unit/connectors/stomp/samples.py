"""Destinations and a message for the tests of dialects."""

from __future__ import annotations

from typing import Any

from app.config.settings import QueueSettings, TopicSettings
from app.connectors.base import Destination
from app.domain.message import Publication
from app.domain.uri import MqUri


def queue(name: str = "jobs", **settings: Any) -> Destination:
    """A Queue of the service `s`."""
    return Destination(MqUri.parse(f"s::Queues::{name}"), QueueSettings.model_validate(settings))


def topic(name: str = "status", **settings: Any) -> Destination:
    """A Topic of the service `s`."""
    return Destination(MqUri.parse(f"s::Topics::{name}"), TopicSettings.model_validate(settings))


def publication(body: bytes = b"x", **fields: Any) -> Publication:
    """The message `m-1`."""
    return Publication(body=body, message_id="m-1", **fields)
