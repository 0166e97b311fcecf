"""What a worker says of its leases, and what becomes of it, on whichever replica the leases are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.domain.uri import MqUri

Verb = Literal["ack", "nack", "renew"]
#: What became of an answer to a lease. `elsewhere`: it is another replica's, which cannot be reached.
Result = Literal["done", "expired", "unknown", "elsewhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The same word for some leases of one destination, or of a named subscription of it.

    `requeue` and `delay` (seconds) are a nack's; `seconds` is a renew's, None for as long as the lease had.
    """

    verb: Verb
    mq_uri: MqUri
    subscription: str | None = None
    requeue: bool = True
    delay: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of it for one lease; `expires_at` (Unix time) where it was renewed."""

    result: Result
    expires_at: float | None = None


UNKNOWN = Settled("unknown")
ELSEWHERE = Settled("elsewhere")
