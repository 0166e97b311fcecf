"""What the declared destinations are called at the broker."""

from __future__ import annotations

from app.config.settings import ServiceSettings
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.known_paths import known_paths
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.domain.uri import MqUri


def test_each_by_its_name_or_what_is_configured() -> None:
    settings = ServiceSettings.model_validate(
        {"host": "h", "queues": {"a/b": None, "raw": {"destination": "/exchange/logs"}}, "topics": {"status": None}}
    )
    assert dict(known_paths("s", settings, RabbitMQ())) == {
        "/queue/a%2Fb": MqUri.parse("s::Queues::a/b"),
        "/exchange/logs": MqUri.parse("s::Queues::raw"),
        "/topic/status": MqUri.parse("s::Topics::status"),
    }


def test_a_name_that_the_broker_cannot_have_is_left_out() -> None:
    settings = ServiceSettings.model_validate({"host": "h", "queues": {"amq.own": None, "jobs": None}})
    assert list(dict(known_paths("s", settings, RabbitMQ()))) == ["/queue/jobs"]
    assert list(dict(known_paths("s", settings, Dialect()))) == ["/queue/amq.own", "/queue/jobs"]
