"""The answer to a receive: messages as envelopes with their leases, or one as it is."""

from __future__ import annotations

import asyncio
import json
import re

from app.api.answer import JSON, NO_STORE, Answer
from app.api.receive_request import ReceiveRequest
from app.domain.message import OCTET_STREAM, Message, rfc3339
from app.gateway.leases import Lease
from app.gateway.takings import Takings
from app.wire.payload import envelope

#: Characters of `Mq-Headers` in an answer; clients refuse longer header lines (Python's at 64 KiB).
MAX_HEADER = 32 << 10
#: Bytes that are encoded before others have their turn.
LARGE_PIECE = 256 << 10

_CONTENT_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


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
