"""What the declared destinations of a service are called at its broker; a reply-to is read with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from app.config.settings import ServiceSettings
from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect
from app.domain.errors import InvalidName
from app.domain.uri import DestinationType, MqUri


def known_paths(service: str, settings: ServiceSettings, dialect: Dialect) -> Iterator[tuple[str, MqUri]]:
    """STOMP destinations with their mqURIs; a name that this broker cannot have is left out."""
    for kind, declared in (("Queues", settings.queues), ("Topics", settings.topics)):
        for name, destination in declared.items():
            uri = MqUri(service, DestinationType(kind), name)
            with contextlib.suppress(InvalidName):
                yield dialect.path(Destination(uri, destination)), uri
