"""ActiveMQ Artemis, with the acceptor's prefixes /queue/ and /topic/, by which others find the same addresses.

Facts: its documentation ("STOMP") and its source (StompUtils, VersionedStompFrameHandler). Not run.
"""

from __future__ import annotations

from app.connectors.base import Destination
from app.connectors.stomp.activemq import ActiveMQ, durable_name
from app.connectors.stomp.dialect import Headers, ReplyQueues
from app.domain.errors import NotSupportedByBroker

#: Bytes for which a message counts in the window, which has bytes where others have a number of messages: the
#: broker's own window. One message at least is on its way, whatever its size.
_MESSAGE = 10 * 1024


class Artemis(ActiveMQ):
    """NACK discards there, as ACK does: what is to come again needs the end of its subscription."""

    name = "Artemis"
    reply_queues = ReplyQueues.NONE

    def address_headers(self, destination: Destination) -> Headers:
        routing = self._routing(destination)
        return {} if routing is None else {"destination-type": routing}

    def check_subscription(self, destination: Destination, client_id: str | None) -> None:
        if client_id is None:
            raise NotSupportedByBroker(
                f"{destination.uri} has `subscriptions`: {self.name} needs the service's `client_id` for them"
            )

    def is_shared(self, destination: Destination) -> bool:
        return True

    def _virtual_queue(self, destination: Destination) -> str | None:
        return None

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        routing = self._routing(destination)
        headers = {} if routing is None else {"subscription-type": routing}
        if prefetch is not None:
            headers["consumer-window-size"] = str(prefetch * _MESSAGE)
        if destination.subscription is not None:
            headers["durable-subscription-name"] = durable_name(destination)
        return headers

    def _routing(self, destination: Destination) -> str | None:
        """Said each time: with prefixes or without, a Queue is one, and a Topic too."""
        if destination.settings.destination is not None:
            return None
        return "ANYCAST" if destination.uri.is_queue else "MULTICAST"
