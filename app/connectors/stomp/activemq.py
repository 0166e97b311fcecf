"""ActiveMQ Classic. Facts: activemq.apache.org/components/classic/documentation/stomp, observed on 5.17."""

from __future__ import annotations

from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect, Headers, ReplyQueues


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

    def declare_headers(self, destination: Destination) -> Headers:
        return {}  # queue arguments are RabbitMQ's
