"""What goes in (Publication), what the caller learns (Published) and what comes out (Message)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.domain.uri import MqUri

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A message to be published. `headers` are the caller's own; the typed fields are mapped per broker.

    ttl_ms and delay_ms are milliseconds, priority 0-9 (AMQP's and JMS's common range). Publications with the same
    `duplicate_id` are one message: a broker that knows such ids takes one of them.
    """

    body: bytes = field(repr=False)
    message_id: str
    content_type: str = OCTET_STREAM
    persistent: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    ttl_ms: int | None = None
    delay_ms: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    type: str | None = None
    group: str | None = None
    reply_to: MqUri | None = None
    duplicate_id: str | None = None

    @property
    def size(self) -> int:
        """Bytes it holds: body and headers."""
        return _size(self.body, self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The answer to a publish; `confirmed` is true only after the broker's RECEIPT."""

    message_id: str
    mq_uri: MqUri
    confirmed: bool
    persistent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as received. `content_type` is None where the producer gave none; `headers` are the producer's own,
    a known `reply-to` as mqURI.

    `received_at` is Unix time in seconds, taken when the gateway read the frame.
    """

    mq_uri: MqUri
    message_id: str
    body: bytes = field(repr=False)
    content_type: str | None
    headers: Mapping[str, str]
    redelivered: bool
    received_at: float

    @property
    def size(self) -> int:
        """Bytes it holds: body and headers."""
        return _size(self.body, self.headers)


def _size(body: bytes, headers: Mapping[str, str]) -> int:
    return len(body) + sum(len(name) + len(value) for name, value in headers.items())


def rfc3339(timestamp: float) -> str:
    """Unix time in seconds as RFC 3339 UTC with milliseconds, `2026-01-02T03:04:05.678Z`."""
    text = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
