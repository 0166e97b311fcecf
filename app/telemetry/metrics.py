"""Every metric of the gateway, in a registry of its own: two applications in one process share no counters.

Names and labels are those of the HTTP contract (section 4). A label value is a configured service, a type of
destination or a member of a closed set: never a destination's name, a principal or what a client can choose.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from app.telemetry.tasks import count_tasks

#: Media type of `Metrics.render()` (Prometheus text exposition format 0.0.4).
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: The service label of a request whose service is not configured: an unknown name must not become a label.
NO_SERVICE = "unknown"
#: The same for a request that is refused before its destination is known.
NO_TYPE = "unknown"
#: Seconds: from half a millisecond (a local broker) to the longest publish timeout.
PUBLISH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_PREFIX = "mq_gateway"

# One `_created` series beside every counter doubles what is scraped and is read by nobody. The library has a
# process-wide switch only, hence here and not in the class.
disable_created_metrics()  # type: ignore[no-untyped-call]


def gateway_version() -> str:
    """The installed version of the distribution, `0+unknown` in a tree never installed."""
    try:
        return version("mq-gateway")
    except PackageNotFoundError:
        return "0+unknown"


class Metrics:
    """One attribute per metric; `render()` gives what `GET /metrics` answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._publishing()
        self._streaming()
        self._peers()
        self._links()
        self._authentication()
        self._process()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _publishing(self) -> None:
        self.publishes = self._counter(
            "publishes_total", "Publishes by what became of them.", "service", "type", "outcome"
        )
        self.publish_seconds = Histogram(
            f"{_PREFIX}_publish_seconds",
            "Time from the request's head to its answer, in seconds.",
            ("service", "type"),
            buckets=PUBLISH_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = self._gauge("in_flight", "Publishes handed to the broker and not yet answered.", "service")
        self.awaiting_reply = self._gauge("awaiting_reply", "Requests whose reply has not come.", "service")

    def _streaming(self) -> None:
        self.streams = self._gauge("streams", "Open event streams.", "service", "type")
        self.streams_closed = self._counter("streams_closed_total", "Ended event streams.", "reason")
        self.streams_refused = self._counter("streams_refused_total", "Refused event streams.", "reason")
        self.events_delivered = self._counter("events_delivered_total", "Events handed to sockets.", "service", "type")
        self.gaps = self._counter("gaps_total", "Gaps told to readers, by reason.", "service", "reason")
        self.buffer_bytes = self._gauge("buffer_bytes", "Bytes held in rings and buffers.", "service")
        self.unsent_bytes = self._gauge("unsent_bytes", "Bytes written to event streams that clients have not taken.")
        self.leases = self._gauge("leases", "Messages leased to HTTP workers.", "service")
        self.leases_ended = self._counter("leases_ended_total", "Ended leases, by how.", "service", "reason")

    def _peers(self) -> None:
        self.peer_requests = self._counter(
            "peer_requests_total", "Questions to other replicas, by what became of them.", "outcome"
        )
        self.forwarded_leases = self._counter(
            "forwarded_leases_total", "Leases of other replicas that workers answered here.", "verb", "result"
        )

    def _links(self) -> None:
        self.link_up = self._gauge("link_up", "1 while the link to the broker is authenticated, else 0.", "service")
        self.connections = self._gauge("connections", "Connections to brokers that are wanted.", "service")
        self.connections_up = self._gauge("connections_up", "Connections to brokers that are up.", "service")
        self.reconnects = self._counter("reconnects_total", "Connections made after one was lost.", "service")
        self.connector_events = self._counter(
            "connector_events_total", "What a connector saw and no caller was told.", "service", "event"
        )

    def _authentication(self) -> None:
        self.auth_failures = self._counter("auth_failures_total", "Requests refused for who they came from.", "reason")
        self.jwks_fetches = self._counter(
            "jwks_fetches_total", "Fetches of the keys of the issuer of JWTs, by what became of them.", "outcome"
        )
        self.jwks_age_seconds = self._gauge(
            "jwks_age_seconds", "Time since the issuer last told its keys, in seconds; +Inf if it never did."
        )

    def _process(self) -> None:
        self.refused_connections = self._counter(
            "refused_connections_total", "Connections and requests that never got to the application.", "reason"
        )
        self.certificate_expiry = self._gauge(
            "certificate_expiry_seconds", "When the certificate of the gateway's own HTTPS ends, in Unix time; 0: none."
        )
        self.loop_lag_seconds = self._gauge(
            "loop_lag_seconds", "How late the loop woke a timer, in seconds, worst of the last interval."
        )
        self.tasks = self._gauge("tasks", "Asyncio tasks that are not done.")
        self.tasks.set_function(count_tasks)
        self.config_reload_success = self._gauge(
            "config_reload_success", "1 if the last load of the configuration succeeded, else 0."
        )
        self.config_reload_success.set(1)
        self.build_info = self._gauge("build_info", "1; the labels name the build.", "version", "python")
        self.build_info.labels(gateway_version(), python_version()).set(1)
        ProcessCollector(registry=self.registry)

    def forget(self, service: str) -> None:
        """A service is no longer configured: what it is goes, what was counted stays."""
        links = (self.link_up, self.connections, self.connections_up)
        for gauge in (*links, self.in_flight, self.awaiting_reply, self.buffer_bytes, self.leases):
            with contextlib.suppress(KeyError):
                gauge.remove(service)

    def render(self) -> bytes:
        """The present values in the Prometheus text format; see CONTENT_TYPE."""
        return generate_latest(self.registry)
