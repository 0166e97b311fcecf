"""POST on a Queue's receive: messages for workers that speak no STOMP, leased until they are answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.api import query
from app.api.accept import wants_octets
from app.api.answer import JSON, NO_STORE, Answer
from app.api.connection import Connection
from app.api.context import Context
from app.api.exchange import ClientGone, Exchange
from app.api.query import bad_parameter
from app.connectors.base import Destination
from app.domain.errors import MethodNotAllowed, NotFound, Overloaded
from app.domain.message import OCTET_STREAM, Message, rfc3339
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.gateway.leases import Lease
from app.gateway.takings import Takings
from app.wire.payload import envelope

#: Messages (count) of one request.
MAX_MESSAGES = 1000
#: Seconds that a request may wait for a first message.
MAX_WAIT = 20
#: Seconds of a lease where the request does not say.
DEFAULT_LEASE = 30
#: Seconds of a lease at least: less is over before its answer has arrived.
MIN_LEASE = 1
#: Characters of `Mq-Headers` in an answer; clients refuse longer header lines (Python's at 64 KiB).
MAX_HEADER = 32 << 10

PARAMETERS = ("max", "wait", "lease", "ack", "subscription")
_CONTENT_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


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


class Receiving:
    """The handler."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting = 0

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Answer with messages, or 204; raises GatewayError, and ClientGone where nobody waits any more."""
        gateway = self._context.gateway
        destination = gateway.resolve(uri)
        exchange.access.mq_uri = str(uri)
        request = parse(exchange, uri, gateway.settings.limits.lease_max)
        with self._place():
            leases = await _take(exchange, gateway, destination, request)
            await self._hand_over(exchange, gateway.takings, leases, request)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """As many may wait for messages as for events; raises Overloaded."""
        if self._waiting >= self._context.settings.limits.streams:
            raise Overloaded("as many requests wait for messages as this gateway takes")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _hand_over(
        self, exchange: Exchange, takings: Takings, leases: list[Lease], request: ReceiveRequest
    ) -> None:
        """Answer; what the client did not get goes back at once, what it got is leased or, with `auto`, acked."""
        handed_over = False
        try:
            answer = _answer(leases, takings, request)
            handed_over = await _send(exchange, answer, self._context.settings.server.write_timeout)
        finally:
            if handed_over:
                takings.answered(leases)
            else:
                takings.leases.give_back(leases)
        if not request.explicit:
            for lease in leases:
                takings.leases.ack(lease.mq_uri, lease.number)
        await exchange.send(b"", more=False)


async def _take(exchange: Exchange, gateway: Gateway, destination: Destination, request: ReceiveRequest) -> list[Lease]:
    """Take for as long as the client waits for it."""
    # With `auto` the end of the answer ends the lease; until then it has as long as there is.
    seconds = request.seconds if request.explicit else gateway.settings.limits.lease_max
    taking = asyncio.ensure_future(gateway.take(destination, most=request.most, seconds=seconds, wait=request.wait))
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        taking.cancel()

    connection = Connection(exchange, leave)
    try:
        return await taking
    except asyncio.CancelledError:
        if gone:
            raise ClientGone from None
        raise
    finally:
        connection.forget()


async def _send(exchange: Exchange, answer: Answer, patience: float) -> bool:
    """All of the answer but its end; whether the kernel has it and the client was still there."""
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    connection = Connection(exchange, leave)
    head = answer.headers
    if answer.status != 204:  # which has neither (RFC 9110 sections 8.6 and 15.3.5)
        head += ((b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body)))
    try:
        connection.write_through()
        async with asyncio.timeout(patience):
            await exchange.start(answer.status, head)
        await connection.send(answer.body, patience=patience)
        await connection.send(b"", patience=patience)  # returns when the kernel has taken it all
    except TimeoutError:
        connection.abort()
        raise ClientGone from None
    finally:
        connection.forget()
    return not (gone or connection.is_closing())


def _answer(leases: list[Lease], takings: Takings, request: ReceiveRequest) -> Answer:
    if not leases:
        return Answer(status=204, content_type=JSON, body=b"")
    if request.octets:
        return _octets(leases[0], takings, request)
    bodies = [envelope(lease.delivery.message, None, _members(lease, takings, request)) for lease in leases]
    return Answer(status=200, content_type=JSON, body=b'{"messages":[%b]}' % b",".join(bodies))


def _members(lease: Lease, takings: Takings, request: ReceiveRequest) -> dict[str, str | int]:
    """What an envelope has beside the message."""
    members: dict[str, str | int] = {}
    if request.explicit:
        members = {"lease": takings.token(lease), "lease_expires_at": rfc3339(lease.expires_at)}
    count = delivery_count(lease.delivery.message)
    return members if count is None else {**members, "delivery_count": count}


def delivery_count(message: Message) -> int | None:
    """How often the broker has delivered it, this time included; None where it does not count.

    RabbitMQ's quorum queues count returns (`x-delivery-count`), JMS brokers deliveries.
    """
    for name, first in (("x-delivery-count", 1), ("JMSXDeliveryCount", 0)):
        text = message.headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text) + first
    return None


def _octets(lease: Lease, takings: Takings, request: ReceiveRequest) -> Answer:
    """The body itself; what an envelope says of it stands in headers."""
    message = lease.delivery.message
    members = _members(lease, takings, request)
    said: dict[str, str] = {
        "Mq-Uri": _ascii(str(message.mq_uri)),
        "Mq-Message-Id": _ascii(message.message_id),
        "Mq-Redelivered": str(message.redelivered).lower(),
        "Mq-Received-At": rfc3339(message.received_at),
        **{f"Mq-{name.replace('_', '-').title()}": str(value) for name, value in members.items()},
        **_headers(message),
    }
    content_type = message.content_type or ""
    return Answer(
        status=200,
        content_type=content_type.encode() if _CONTENT_TYPE.fullmatch(content_type) else OCTET_STREAM.encode(),
        body=message.body,
        headers=(NO_STORE, *((name.lower().encode(), value.encode()) for name, value in said.items())),
    )


def _headers(message: Message) -> dict[str, str]:
    """The message's own headers as a publish takes them; too many to be taken are counted."""
    text = _json(dict(message.headers))
    if len(text) > MAX_HEADER:
        return {"Mq-Headers-Omitted": str(len(message.headers))}
    return {"Mq-Headers": text}


def _ascii(text: str) -> str:
    """A header's value is ASCII on the wire: everything else as JSON escapes it, without the quotes."""
    return _json(text)[1:-1]


def _json(value: object) -> str:
    # json leaves DEL as it is, which no header may hold (RFC 9110 section 5.5).
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
