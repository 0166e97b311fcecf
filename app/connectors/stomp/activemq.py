"""ActiveMQ Classic. Facts: activemq.apache.org/components/classic/documentation/stomp, observed on 5.17."""

from __future__ import annotations

from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect, Headers, ReplyQueues
from app.domain.errors import NotSupportedByBroker
from app.domain.uri import subscription_queue

#: Topics of which ActiveMQ hands a copy to every queue `Consumer.<name>.<topic>`, as it is configured at first.
_VIRTUAL = "/topic/VirtualTopic."


class ActiveMQ(Dialect):
    """It delays only with `schedulerSupport="true"` in its configuration; without, it ignores the wish in silence."""

    name = "ActiveMQ"
    prefetch_header = "activemq.prefetchSize"
    reply_queues = ReplyQueues.SUBSCRIBED
    #: It looks once in an interval and is content with a frame it sent since: silent for two, observed on 5.17.
    silent_intervals = 2.5
    answers_before_commit = True
    may_be_alone = True

    def delay(self, milliseconds: int) -> Headers:
        return {"AMQ_SCHEDULED_DELAY": str(milliseconds)}

    def group(self, name: str) -> Headers:
        return {"JMSXGroupID": name}

    def check_subscription(self, destination: Destination, client_id: str | None) -> None:
        if client_id is None and self._virtual_queue(destination) is None:
            raise NotSupportedByBroker(
                f"{destination.uri} has `subscriptions`: {self.name} needs the service's `client_id` for them"
                ", or a Topic whose name begins with VirtualTopic."
            )

    def source(self, destination: Destination) -> str:
        return self._virtual_queue(destination) or self.path(destination)

    def is_shared(self, destination: Destination) -> bool:
        # Under a client id ActiveMQ takes one consumer: the next one is refused.
        return destination.subscription is None or self._virtual_queue(destination) is not None

    def _virtual_queue(self, destination: Destination) -> str | None:
        """Where the messages of a durable subscription wait, if they wait in a queue of their own."""
        topic = self.path(destination)
        if destination.subscription is None or not topic.startswith(_VIRTUAL):
            return None
        return f"/queue/Consumer.{destination.subscription}.{topic.removeprefix('/topic/')}"

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        headers = Dialect.subscribe_headers(self, destination, prefetch)
        if not self.is_shared(destination):
            headers["activemq.subscriptionName"] = durable_name(destination)
        return headers

    def declare_headers(self, destination: Destination) -> Headers:
        return {}  # queue arguments are RabbitMQ's


def durable_name(destination: Destination) -> str:
    """What a durable subscription is called under its client id, where all Topics share the names."""
    return subscription_queue(
        destination.uri.name, destination.subscription or "", destination.settings.destination, "."
    )
