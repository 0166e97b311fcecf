"""What Artemis is told beside what ActiveMQ is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.domain.errors import NotSupportedByBroker
from tests.unit.connectors.stomp.samples import publication, queue, topic


def test_artemis_is_told_what_is_a_queue_and_counts_bytes() -> None:
    assert Artemis().address_headers(queue()) == {"destination-type": "ANYCAST"}
    assert Artemis().address_headers(topic()) == {"destination-type": "MULTICAST"}
    assert Artemis().subscribe_headers(topic(), None) == {"subscription-type": "MULTICAST"}
    assert Artemis().subscribe_headers(queue(), 5) == {"subscription-type": "ANYCAST", "consumer-window-size": "51200"}
    own = queue(destination="jobs::jobs")
    assert Artemis().address_headers(own) == {}
    assert Artemis().subscribe_headers(own, 2) == {"consumer-window-size": "20480"}
    assert Artemis().subscribe_headers(own, 1) == {"consumer-window-size": "1"}, "one message uses it up"
    assert ActiveMQ().address_headers(queue()) == RabbitMQ().address_headers(queue()) == {}


def test_only_artemis_is_told_what_is_sent_again() -> None:
    again = publication(duplicate_id="d-1")
    assert Artemis().send_headers(again)["_AMQ_DUPL_ID"] == "d-1"
    assert "_AMQ_DUPL_ID" not in Artemis().send_headers(publication())
    for other in (ActiveMQ(), RabbitMQ()):
        assert other.send_headers(again) == other.send_headers(publication())


def test_a_durable_subscription_goes_by_the_client_id() -> None:
    kept = replace(topic("VirtualTopic.a", subscriptions=["archiver"]), subscription="archiver")
    with pytest.raises(NotSupportedByBroker, match="client_id"):
        Artemis().check_subscription(kept, None)
    Artemis().check_subscription(kept, "gateway")
    assert Artemis().source(kept) == "/topic/VirtualTopic.a"
    assert Artemis().is_shared(kept)
    assert Artemis().subscribe_headers(kept, 1) == {
        "subscription-type": "MULTICAST",
        "consumer-window-size": "1",
        "durable-subscription-name": "VirtualTopic.a.archiver",
    }
