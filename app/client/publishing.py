"""Publishing one message through a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from app.client.connection import ClientError, Target, parse_object, read_answer, refusal, unreachable
from app.domain.uri import MqUri

#: Seconds the gateway waits for the broker where the caller does not say (HTTP contract, section 1).
GATEWAY_SECONDS = 5.0
#: Seconds more that we wait for the gateway than it waits for the broker.
MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish; what is None is left to the destination's settings. Times in the unit of the name."""

    body: bytes = field(repr=False)
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    persistent: bool | None = None
    ttl_ms: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    confirm: Literal["receipt", "none"] = "receipt"
    timeout_seconds: float | None = None

    def request_headers(self) -> list[tuple[bytes, bytes]]:
        """The request's headers (HTTP contract, section 1)."""
        given = {
            "content-type": self.content_type,
            "mq-persistent": None if self.persistent is None else str(self.persistent).lower(),
            "mq-ttl-ms": self.ttl_ms,
            "mq-priority": self.priority,
            "mq-correlation-id": self.correlation_id,
            "mq-headers": json.dumps(self.headers) if self.headers else None,
        }
        return [(name.encode(), str(value).encode()) for name, value in given.items() if value is not None]

    def parameters(self) -> dict[str, str]:
        """The request's query."""
        timeout = {} if self.timeout_seconds is None else {"timeout": f"{self.timeout_seconds:g}"}
        return {"confirm": self.confirm} | timeout


def publish(target: Target, uri: MqUri, message: Outgoing) -> dict[str, Any]:
    """Publish once, never twice; returns the gateway's answer, raises ClientError that says what became of it."""
    waits = GATEWAY_SECONDS if message.timeout_seconds is None else message.timeout_seconds
    with one_try(target, waits + MARGIN_SECONDS, "the message") as client:
        return _send(client, target.resource(uri), message)


@contextmanager
def one_try(target: Target, timeout: float, what: str) -> Iterator[httpx.Client]:
    """A client whose failures say what became of `what`."""
    with target.open(timeout) as client:
        try:
            yield client
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise unreachable(target, error) from None
        except httpx.LocalProtocolError as error:
            raise ClientError(f"this cannot be a request: {error} (nothing was sent)") from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            text = f"{target.origin}: no answer ({reason}); {what} may or may not have been delivered"
            raise ClientError(text) from None


def _send(client: httpx.Client, url: str, message: Outgoing) -> dict[str, Any]:
    headers, params = message.request_headers(), message.parameters()
    with client.stream("POST", url, content=message.body, headers=headers, params=params) as response:
        if not response.is_success:
            raise refusal(response)
        answer = parse_object(read_answer(response))
    if "message_id" not in answer:
        raise ClientError(f"{response.status_code}: not an answer of mq-gateway")
    return answer
