"""What happened on each destination since the start of this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice

from app.config.settings import ServiceSettings
from app.domain.uri import DestinationType, MqUri
from app.gateway.stream import Counts

#: Counters are kept for this many undeclared destinations of a service, the last used; names come without end.
MAX_UNDECLARED = 10_000
#: What a view lists of them: it is made on the event loop.
MAX_LISTED = 1_000


def declared(service: str, settings: ServiceSettings) -> list[MqUri]:
    """The declared destinations of a service, Queues first."""
    queues = [MqUri(service, DestinationType.QUEUES, name) for name in settings.queues]
    return queues + [MqUri(service, DestinationType.TOPICS, name) for name in settings.topics]


class Counters:
    """Counts per destination. Those that are not declared are there from their first use, and only the last used."""

    def __init__(self, services: Mapping[str, ServiceSettings]) -> None:
        self._counts = {uri: Counts() for name in services for uri in declared(name, services[name])}
        self._undeclared: dict[str, OrderedDict[MqUri, Counts]] = {name: OrderedDict() for name in services}

    def reload(self, services: Mapping[str, ServiceSettings]) -> None:
        """Other services are configured: what both have keeps its counts."""
        before = self._counts
        self._counts = {uri: before.get(uri, Counts()) for name in services for uri in declared(name, services[name])}
        self._undeclared = {name: self._undeclared.get(name, OrderedDict()) for name in services}

    def used(self, uri: MqUri) -> Counts:
        """The counts of a destination, to be added to; for what succeeded: what fails must leave no name behind."""
        counts = self._counts.get(uri)
        if counts is not None:
            return counts
        others = self._others(uri.service)
        counts = others.setdefault(uri, Counts())
        others.move_to_end(uri)
        if len(others) > MAX_UNDECLARED:
            others.popitem(last=False)
        return counts

    def of(self, uri: MqUri) -> Counts:
        """The counts of a destination as they are; zeros where none are kept."""
        return self._counts.get(uri) or self._others(uri.service).get(uri) or Counts()

    def undeclared(self, service: str) -> tuple[list[MqUri], int]:
        """The destinations used last that are not declared, the last first, and how many more are known."""
        others = self._others(service)
        listed = list(islice(reversed(others), MAX_LISTED))
        return listed, len(others) - len(listed)

    def _others(self, service: str) -> OrderedDict[MqUri, Counts]:
        """Undeclared ones; of a service that is just going, nothing is kept."""
        return self._undeclared.get(service, OrderedDict())
