"""What Artemis is told beside what ActiveMQ is."""

from __future__ import annotations

from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.rabbitmq import RabbitMQ
from tests.unit.connectors.stomp.samples import queue, topic


def test_artemis_is_told_what_is_a_queue_and_counts_bytes() -> None:
    assert Artemis().address_headers(queue()) == {"destination-type": "ANYCAST"}
    assert Artemis().address_headers(topic()) == {"destination-type": "MULTICAST"}
    assert Artemis().subscribe_headers(topic(), None) == {"subscription-type": "MULTICAST"}
    assert Artemis().subscribe_headers(queue(), 5) == {"subscription-type": "ANYCAST", "consumer-window-size": "51200"}
    own = queue(destination="jobs::jobs")
    assert Artemis().address_headers(own) == {}
    assert Artemis().subscribe_headers(own, 1) == {"consumer-window-size": "10240"}
    assert ActiveMQ().address_headers(queue()) == RabbitMQ().address_headers(queue()) == {}
