"""The answer to a receive: messages as envelopes with their leases, or one as it is."""

from __future__ import annotations

import asyncio

from app.api.answer import JSON, Answer
from app.api.raw_answer import raw_answer
from app.api.receive_request import ReceiveRequest
from app.domain.message import Message, rfc3339
from app.gateway.leases import Lease
from app.gateway.takings import Takings
from app.wire.payload import envelope

#: Bytes that are encoded before others have their turn.
LARGE_PIECE = 256 << 10


async def encode(leases: list[Lease], takings: Takings, request: ReceiveRequest) -> Answer:
    """200 with the messages, or 204 without any."""
    if not leases:
        return Answer(status=204, content_type=JSON, body=b"")
    if request.octets:
        return _octets(leases[0], takings, request)
    bodies: list[bytes] = []
    size = 0
    for lease in leases:
        bodies.append(envelope(lease.delivery.message, None, _members(lease, takings, request)))
        size += len(bodies[-1])
        if size > LARGE_PIECE:  # encoding takes time, and there are others
            size = 0
            await asyncio.sleep(0)
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
    said = {
        "mq-uri": str(message.mq_uri),
        "mq-received-at": rfc3339(message.received_at),
        **{f"mq-{name.replace('_', '-')}": str(value) for name, value in _members(lease, takings, request).items()},
    }
    if not message.redelivered:  # a worker reads the word, and not whether it is there
        said["mq-redelivered"] = "false"
    return raw_answer(message, *((name.encode(), value.encode()) for name, value in said.items()))
