"""The connector registry: exactly one MQConnector per mqService, for the life of the gateway."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from app.config.settings import Settings
from app.connectors.base import ConnectorContext, Destination, MQConnector
from app.connectors.catalog import connector_class
from app.domain.errors import UnknownDestination, UnknownService
from app.domain.link import LinkState
from app.domain.uri import MqUri, check_name
from app.gateway.closing import CUT_OFF_SECONDS, close_together
from app.telemetry.metrics import Metrics

StateListener = Callable[[str, LinkState], None]


class Registry:
    """Makes the connectors, starts and closes them together, and finds the one for an mqURI."""

    def __init__(self, settings: Settings, metrics: Metrics, on_state: StateListener) -> None:
        self._settings = settings
        self._metrics = metrics
        self._on_state = on_state
        self._connectors = {name: self._make(name) for name in settings.services}
        self._was_up: set[str] = set()

    def _make(self, name: str) -> MQConnector:
        service = self._settings.services[name]
        metrics = self._metrics
        metrics.link_up.labels(name).set(0)
        metrics.reconnects.labels(name)

        def on_state(_previous: LinkState, state: LinkState) -> None:
            self._note_state(name, state)

        context = ConnectorContext(
            in_flight=self._settings.limits.in_flight,
            on_state=on_state,
            on_event=lambda event: metrics.connector_events.labels(name, event).inc(),
        )
        connector = connector_class(service.mq_type)(name, service, context)
        metrics.in_flight.labels(name).set_function(lambda: connector.in_flight)
        return connector

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

    def connector(self, service: str) -> MQConnector:
        """The connector of an mqService; raises UnknownService."""
        found = self._connectors.get(service)
        if found is None:
            raise UnknownService(f"no service is called {service!r}{_near(service, list(self._connectors))}")
        return found

    def resolve(self, uri: MqUri) -> Destination:
        """The declared destination; raises InvalidName, UnknownService, UnknownDestination. Matching is exact."""
        check_name(uri.name)
        connector = self.connector(uri.service)
        connector.check_name(uri)
        settings = connector.settings.destination(uri)
        if settings is None:
            declared = connector.settings.queues if uri.is_queue else connector.settings.topics
            raise UnknownDestination(f"{uri} is not declared{_near(uri.name, list(declared))}")
        return Destination(uri, settings)

    async def start(self) -> None:
        """Begin to connect; waits for no broker."""
        for connector in self._connectors.values():
            await connector.start()

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


def _near(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
