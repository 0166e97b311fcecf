"""What RabbitMQ alone does."""

from __future__ import annotations

import pytest

from app.connectors.stomp.rabbitmq import RabbitMQ
from app.domain.errors import InvalidName
from tests.unit.connectors.stomp.samples import queue


def test_a_queue_that_rabbitmq_would_not_declare_is_refused_and_not_tried() -> None:
    with pytest.raises(InvalidName, match=r"amq\."):
        RabbitMQ().path(queue("amq.x"))


def test_the_arguments_of_the_configuration_are_copied() -> None:
    quorum = queue(arguments={"x-queue-type": "quorum"})
    RabbitMQ().declare_headers(quorum)["receipt"] = "r1"
    assert quorum.settings.arguments == {"x-queue-type": "quorum"}
