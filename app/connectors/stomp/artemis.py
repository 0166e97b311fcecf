"""ActiveMQ Artemis, with the acceptor's prefixes /queue/ and /topic/, by which others find the same addresses.

Facts: its documentation ("STOMP", "Duplicate Message Detection") and its source (StompSession, StompUtils,
VersionedStompFrameHandler, ServerConsumerImpl). Not run against a real one.
"""

from __future__ import annotations

from app.connectors.base import Destination
from app.connectors.stomp.activemq import ActiveMQ, durable_name
from app.connectors.stomp.dialect import Headers, ReplyQueues
from app.domain.errors import NotSupportedByBroker
from app.domain.message import Publication

#: Bytes for which a message counts in the window, which has bytes where others have a number of messages: the
#: broker's own window. One message at least is on its way, whatever its size.
_MESSAGE = 10 * 1024
#: A window that one message of any size uses up: the next is sent when it is acknowledged.
_ONE_MESSAGE = 1


class Artemis(ActiveMQ):
    """NACK discards there, as ACK does: what is to come again needs the end of its subscription."""

    name = "Artemis"
    reply_queues = ReplyQueues.NONE

    def send_headers(self, publication: Publication, reply_to: str | None = None) -> Headers:
        headers = ActiveMQ.send_headers(self, publication, reply_to)
        if publication.duplicate_id is not None:
            headers["_AMQ_DUPL_ID"] = publication.duplicate_id
        return headers

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
            headers["consumer-window-size"] = str(_ONE_MESSAGE if prefetch == 1 else prefetch * _MESSAGE)
        if destination.subscription is not None:
            headers["durable-subscription-name"] = durable_name(destination)
        return headers

    def ended_somebody(self, text: str) -> bool:
        return "disconnected by server" in text

    def _routing(self, destination: Destination) -> str | None:
        """Said each time: with prefixes or without, a Queue is one, and a Topic too."""
        if destination.settings.destination is not None:
            return None
        return "ANYCAST" if destination.uri.is_queue else "MULTICAST"
