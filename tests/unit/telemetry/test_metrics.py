"""Metrics: the names of the contract, in a registry of their own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from app.telemetry import metrics
from app.telemetry.metrics import Metrics, gateway_version

CONTRACT = {
    "mq_gateway_publishes_total": {"service", "type", "outcome"},
    "mq_gateway_publish_seconds": {"service", "type"},
    "mq_gateway_in_flight": {"service"},
    "mq_gateway_awaiting_reply": {"service"},
    "mq_gateway_streams": {"service", "type"},
    "mq_gateway_streams_closed_total": {"reason"},
    "mq_gateway_streams_refused_total": {"reason"},
    "mq_gateway_events_delivered_total": {"service", "type"},
    "mq_gateway_gaps_total": {"service", "reason"},
    "mq_gateway_buffer_bytes": {"service"},
    "mq_gateway_link_up": {"service"},
    "mq_gateway_connections": {"service"},
    "mq_gateway_connections_up": {"service"},
    "mq_gateway_reconnects_total": {"service"},
    "mq_gateway_leases": {"service"},
    "mq_gateway_peer_requests_total": {"outcome"},
    "mq_gateway_forwarded_leases_total": {"verb", "result"},
    "mq_gateway_auth_failures_total": {"reason"},
    "mq_gateway_jwks_fetches_total": {"outcome"},
    "mq_gateway_jwks_age_seconds": set(),
    "mq_gateway_connector_events_total": {"service", "event"},
    "mq_gateway_loop_lag_seconds": set(),
    "mq_gateway_tasks": set(),
    "mq_gateway_config_reload_success": set(),
    "mq_gateway_build_info": {"version", "python"},
}


@pytest.mark.parametrize(("name", "labels"), CONTRACT.items(), ids=CONTRACT)
def test_every_metric_of_the_contract_is_there_with_its_labels(name: str, labels: set[str]) -> None:
    made = Metrics()
    collectors: list[Any] = [value for value in vars(made).values() if hasattr(value, "_labelnames")]
    found = {collector.describe()[0].name: set(collector._labelnames) for collector in collectors}
    assert found[name.removesuffix("_total")] == labels


def test_what_is_counted_is_rendered() -> None:
    made = Metrics()
    made.publishes.labels("a", "Queues", "confirmed").inc()
    made.publish_seconds.labels("a", "Queues").observe(0.0004)
    text = made.render().decode()
    assert 'mq_gateway_publishes_total{outcome="confirmed",service="a",type="Queues"} 1.0' in text
    assert 'mq_gateway_publish_seconds_bucket{le="0.0005",service="a",type="Queues"} 1.0' in text
    assert "mq_gateway_config_reload_success 1.0" in text
    assert "_created" not in text


def test_two_in_one_process_share_nothing() -> None:
    one, two = Metrics(), Metrics()
    one.streams_closed.labels("drain").inc()
    assert two.registry.get_sample_value("mq_gateway_streams_closed_total", {"reason": "drain"}) is None


def test_a_tree_that_was_never_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(metrics, "version", missing)
    assert gateway_version() == "0+unknown"
