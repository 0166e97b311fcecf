"""What a worker asks for when it takes messages: the query, and the form of the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.api import query
from app.api.accept import wants_octets
from app.api.exchange import Exchange
from app.api.query import bad_parameter
from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.domain.errors import MethodNotAllowed, NotFound
from app.domain.message import OCTET_STREAM

#: Messages (count) of one request.
MAX_MESSAGES = 1000
#: Seconds that a request may wait for a first message.
MAX_WAIT = 20
#: Seconds of a lease where the request does not say.
DEFAULT_LEASE = 30
#: Seconds of a lease at least: less is over before its answer has arrived.
MIN_LEASE = 1

PARAMETERS = ("max", "wait", "lease", "ack", "subscription")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveRequest:
    """What a worker asks for; times in seconds. `octets`: one message, its body as the body."""

    source: Destination
    most: int
    wait: float
    seconds: float
    explicit: bool
    octets: bool


def source(destination: Destination, values: dict[str, str]) -> Destination:
    """What messages are taken from: a Queue, or the durable subscription of a Topic that the query names.

    Raises MethodNotAllowed, NotFound, InvalidParameter.
    """
    subscription, settings = values.get("subscription"), destination.settings
    if destination.uri.is_queue:
        if subscription is not None:
            raise bad_parameter("subscription", "is for Topics; a Queue itself keeps its messages")
        return destination
    if subscription is None:
        raise MethodNotAllowed("a Topic itself keeps no messages: name one of its durable subscriptions", allow="")
    if not isinstance(settings, TopicSettings) or subscription not in settings.subscriptions:
        raise NotFound(f"{destination.uri} declares no subscription {subscription[:64]!r}")
    return replace(destination, subscription=subscription)


def parse(exchange: Exchange, destination: Destination, longest: float) -> ReceiveRequest:
    """Read query and Accept; a lease has at most `longest` seconds."""
    values = query.parse(exchange.scope["query_string"], PARAMETERS)
    request = ReceiveRequest(
        source=source(destination, values),
        most=query.whole(values, "max", default=1, low=1, high=MAX_MESSAGES),
        wait=query.number(values, "wait", default=0, low=0, high=MAX_WAIT),
        seconds=query.number(values, "lease", default=DEFAULT_LEASE, low=MIN_LEASE, high=longest),
        explicit=query.choice(values, "ack", {"auto": False, "explicit": True}, True),
        octets=wants_octets(exchange.headers),
    )
    if request.octets and request.most > 1:
        raise bad_parameter("max", f"is 1 where Accept asks for {OCTET_STREAM}: a body holds one message")
    return request
