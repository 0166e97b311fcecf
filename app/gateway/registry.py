"""The connector registry: exactly one MQConnector per mqService, for the life of the gateway."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from app.config.settings import ServiceSettings, Settings
from app.connectors.base import ConnectorContext, Destination, MQConnector
from app.connectors.catalog import connector_class
from app.domain.errors import UnknownDestination, UnknownService
from app.domain.link import LinkState
from app.domain.uri import MqUri, check_name
from app.gateway.closing import CUT_OFF_SECONDS, close_together
from app.telemetry.metrics import Metrics

#: Names (count) that one that is unknown is compared with.
LIKELY = 20


class Sight(Protocol):
    """What somebody may look at: of nothing else a hint is given."""

    def sees(self, uri: MqUri) -> bool:
        """Whether this destination may be named."""

    def sees_service(self, service: str) -> bool:
        """Whether this service may be named."""


StateListener = Callable[[str, LinkState], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What another configuration changes: services by name, and the connectors nobody is to use any more."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    outdated: list[MQConnector]


class Registry:
    """Makes the connectors, starts and closes them together, and finds the one for an mqURI."""

    def __init__(self, settings: Settings, metrics: Metrics, on_state: StateListener) -> None:
        self._window = settings.limits.in_flight
        self._metrics = metrics
        self._on_state = on_state
        self._was_up: set[str] = set()
        self._connectors: dict[str, MQConnector] = {}
        for name, service in settings.services.items():
            self._adopt(self._make(name, service))

    def _make(self, name: str, service: ServiceSettings) -> MQConnector:
        def on_state(_previous: LinkState, state: LinkState) -> None:
            if self._connectors.get(name) is connector:  # else it is on its way out, and another one speaks
                self._note_state(name, state)

        context = ConnectorContext(
            in_flight=self._window,
            on_state=on_state,
            on_event=lambda event: self._metrics.connector_events.labels(name, event).inc(),
        )
        connector = connector_class(service.mq_type)(name, service, context)
        return connector

    def _adopt(self, connector: MQConnector) -> None:
        name = connector.service
        self._connectors[name] = connector
        self._was_up.discard(name)
        self._metrics.link_up.labels(name).set(0)
        self._metrics.connections.labels(name).set_function(lambda: connector.status.connections.of)
        self._metrics.connections_up.labels(name).set_function(lambda: connector.status.connections.up)
        self._metrics.reconnects.labels(name)
        self._metrics.in_flight.labels(name).set_function(lambda: connector.in_flight)
        self._metrics.awaiting_reply.labels(name).set_function(lambda: connector.awaiting_reply)

    def _note_state(self, name: str, state: LinkState) -> None:
        up = state is LinkState.UP
        self._metrics.link_up.labels(name).set(up)
        if up and name in self._was_up:
            self._metrics.reconnects.labels(name).inc()
        if up:
            self._was_up.add(name)
        self._on_state(name, state)

    def __iter__(self) -> Iterator[tuple[str, MQConnector]]:
        return iter(self._connectors.items())

    def connector(self, service: str, sight: Sight | None = None) -> MQConnector:
        """The connector of an mqService; raises UnknownService, with what `sight` sees that may have been meant."""
        found = self._connectors.get(service)
        if found is None:
            near = _near(service, list(self._connectors), sight.sees_service if sight else _everything)
            raise UnknownService(f"no service is called {service!r}{near}")
        return found

    def resolve(self, uri: MqUri, sight: Sight | None = None) -> Destination:
        """The declared destination; raises InvalidName, UnknownService, UnknownDestination. Matching is exact."""
        check_name(uri.name)
        connector = self.connector(uri.service, sight)
        connector.check_name(uri)
        settings = connector.settings.destination(uri)
        if settings is None:
            declared = connector.settings.queues if uri.is_queue else connector.settings.topics
            sees = (lambda name: sight.sees(replace(uri, name=name))) if sight else _everything
            raise UnknownDestination(f"{uri} is not declared{_near(uri.name, list(declared), sees)}")
        return Destination(uri, settings)

    def is_outdated(self, connector: MQConnector, destination: Destination) -> bool:
        """Whether the configuration has changed so that this connector, or the destination as it was, is gone."""
        current = self._connectors.get(connector.service)
        return current is not connector or current.settings.destination(destination.uri) != destination.settings

    async def start(self) -> None:
        """Begin to connect; waits for no broker."""
        for connector in self._connectors.values():
            await connector.start()

    async def reload(self, services: Mapping[str, ServiceSettings]) -> Change:
        """Other services from now on: new ones start, changed ones are told, unchanged ones are left alone.

        The outdated connectors are still to be closed. Raises what the constructor of a connector raises, and then
        nothing has changed.
        """
        before = {name: connector.settings for name, connector in self._connectors.items()}
        made = {name: self._make(name, services[name]) for name in services if services[name] != before.get(name)}
        outdated = [self._connectors.pop(name) for name in before if name not in services]
        for name, connector in made.items():
            if name in before:
                if self._connectors[name].reconfigure(services[name]):
                    continue
                outdated.append(self._connectors[name])
            self._adopt(connector)
            await connector.start()
        unchanged = [name for name in before if name in services and name not in made]
        for name in unchanged:
            self._connectors[name].retry()  # who asks for a reload does not want to wait
        return Change(
            added=[name for name in made if name not in before],
            changed=[name for name in made if name in before],
            removed=[name for name in before if name not in services],
            unchanged=unchanged,
            outdated=outdated,
        )

    async def close(self, timeout: float) -> None:
        """Close all links, each within `timeout` seconds and none waiting for another; raises nothing.

        A connector that does not keep to its time is cut off, 2 x CUT_OFF_SECONDS later at most.
        """
        closing = [connector.close(timeout) for connector in self._connectors.values()]
        await close_together("links", closing, timeout + CUT_OFF_SECONDS)

    def never_up(self) -> list[str]:
        """The services marked `required` that have not been up yet."""
        return [
            name
            for name, connector in self._connectors.items()
            if connector.settings.required and not connector.status.ever_up
        ]


def _everything(_name: str) -> bool:
    return True


def _near(name: str, known: list[str], sees: Callable[[str], bool]) -> str:
    """What may have been meant. A comparison takes long, and a request may name many that are unknown among thousands
    that are declared: only the likely ones are compared."""
    likely = [each for each in heapq.nsmallest(LIKELY, known, key=partial(_unlikeness, name)) if sees(each)]
    matches = difflib.get_close_matches(name, likely, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _unlikeness(name: str, other: str) -> int:
    alike = zip(name, other, strict=False)
    begun = next((at for at, (one, two) in enumerate(alike) if one != two), min(len(name), len(other)))
    return abs(len(name) - len(other)) - begun
