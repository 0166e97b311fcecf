"""Which broker this is."""

from __future__ import annotations

import pytest

from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.connectors.stomp.recognise import recognise


@pytest.mark.parametrize(
    ("server", "kind", "max_frame"),
    [
        ("RabbitMQ/3.10.8", RabbitMQ, None),
        ("RabbitMQ/3.12.1", RabbitMQ, None),
        ("RabbitMQ/3.12.2", RabbitMQ, 4 << 20),
        ("RabbitMQ/3.13.0-rc.1", RabbitMQ, 4 << 20),
        ("rabbitmq/4.1", RabbitMQ, 4 << 20),
        ("RabbitMQ", RabbitMQ, None),
        ("ActiveMQ/5.17.2", ActiveMQ, 100 << 20),
        ("ActiveMQ-Artemis/2.31.0 ActiveMQ Artemis Messaging Engine", Artemis, None),
        ("apache-apollo/1.7", Dialect, None),
        ("", Dialect, None),
    ],
)
def test_brokers_are_recognised_by_what_they_call_themselves(
    server: str, kind: type[Dialect], max_frame: int | None
) -> None:
    dialect = recognise(server)
    assert type(dialect) is kind
    assert (dialect.server, dialect.max_frame) == (server, max_frame)


@pytest.mark.parametrize("server", ["RabbitMQ/4.0.1", "ActiveMQ/5.17.2", "ActiveMQ-Artemis/2", "other"])
def test_a_configured_frame_size_wins(server: str) -> None:
    assert recognise(server, 1000).max_frame == 1000
