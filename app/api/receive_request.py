"""What a worker asks for when it takes messages: the query, and the form of the answer."""

from __future__ import annotations

from dataclasses import dataclass

from app.api import query
from app.api.accept import wants_octets
from app.api.exchange import Exchange
from app.api.query import bad_parameter
from app.domain.errors import MethodNotAllowed, NotFound
from app.domain.message import OCTET_STREAM
from app.domain.uri import MqUri

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

    most: int
    wait: float
    seconds: float
    explicit: bool
    octets: bool


def check_queue(uri: MqUri, values: dict[str, str]) -> None:
    """Messages are taken from Queues; raises MethodNotAllowed, NotFound, InvalidParameter for anything else."""
    subscription = values.get("subscription")
    if uri.is_queue:
        if subscription is not None:
            raise bad_parameter("subscription", "is for Topics; a Queue itself keeps its messages")
    elif subscription is None:
        raise MethodNotAllowed("a Topic keeps no messages to be taken; subscribe to its events", allow="")
    else:
        raise NotFound(f"{uri} declares no subscription {subscription[:64]!r}")


def parse(exchange: Exchange, uri: MqUri, longest: float) -> ReceiveRequest:
    """Read query and Accept; a lease has at most `longest` seconds."""
    values = query.parse(exchange.scope["query_string"], PARAMETERS)
    check_queue(uri, values)
    request = ReceiveRequest(
        most=query.whole(values, "max", default=1, low=1, high=MAX_MESSAGES),
        wait=query.number(values, "wait", default=0, low=0, high=MAX_WAIT),
        seconds=query.number(values, "lease", default=DEFAULT_LEASE, low=MIN_LEASE, high=longest),
        explicit=query.choice(values, "ack", {"auto": False, "explicit": True}, True),
        octets=wants_octets(exchange.headers),
    )
    if request.octets and request.most > 1:
        raise bad_parameter("max", f"is 1 where Accept asks for {OCTET_STREAM}: a body holds one message")
    return request
