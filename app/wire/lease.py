"""The name of a lease as a signed text: clients carry it, nobody can make one up.

`<payload>.<signature>`, both base64url without padding (RFC 4648 section 5), so that it fits a query, a header and an
event's id. The payload names the replica that holds the message, the destination and the delivery.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from app.domain.errors import GatewayError
from app.domain.uri import MqUri

#: Bytes of the signature: a forger has 2^-128 for each try.
_SIGNATURE_BYTES = 16
#: Characters of a token at most: a name of 255 bytes and a long host name, escaped and encoded, have fewer.
MAX_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class LeaseName:
    """Which lease: `instance` is the replica that granted it, `number` counts there.

    Of a Topic it is of one durable `subscription`.
    """

    instance: str
    mq_uri: MqUri
    number: int
    subscription: str | None = None

    def signed(self, key: bytes) -> str:
        """The token."""
        parts = [self.instance, str(self.mq_uri), self.number]
        if self.subscription is not None:
            parts.append(self.subscription)
        payload = _encode(json.dumps(parts, separators=(",", ":")).encode())
        signature = hmac.digest(key, payload, hashlib.sha256)[:_SIGNATURE_BYTES]
        return f"{payload.decode()}.{_encode(signature).decode()}"


def peek(token: str) -> LeaseName | None:
    """What a token says, whoever made it; None where it says nothing."""
    if len(token) > MAX_CHARACTERS or not token.isascii():
        return None
    payload = token.partition(".")[0].encode()
    try:
        instance, mq_uri, number, *more = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        name = LeaseName(str(instance), MqUri.parse(mq_uri), int(number), *map(str, more))
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, GatewayError):
        return None
    return name


def verify(token: str, key: bytes) -> LeaseName | None:
    """The name behind a token signed with `key`, else None.

    The whole text is compared: base64 has several spellings of the same bytes, and only ours counts.
    """
    name = peek(token)
    if name is None or not hmac.compare_digest(name.signed(key), token):
        return None
    return name


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
