"""A request without a server: what the application receives, and what it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message

from app.api.exchange import Exchange
from app.auth.authority import Authority
from app.config.settings import Settings
from app.domain.principal import ANONYMOUS
from app.telemetry.metrics import Metrics

Pairs = Iterable[tuple[bytes, bytes]]


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}
EVERYBODY = Authority(Settings(), Metrics()).caller(ANONYMOUS, "127.0.0.1")


def allowed(exchange: Exchange) -> Exchange:
    """The exchange of somebody who may do everything, as the front makes it where nobody is asked."""
    exchange.caller = EVERYBODY
    return exchange


@dataclass
class Call:
    """One request: `receives` are handed out in order, then nothing comes any more."""

    method: str = "POST"
    path: str = "/mq/demo/Queues/jobs"
    query: bytes = b""
    headers: Pairs = ((b"host", b"127.0.0.1"),)
    receives: list[Message] = field(default_factory=lambda: [piece(b"")])
    seam: dict[str, Any] | None = None
    sent: list[Message] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "headers": list(self.headers),
            "server": ("127.0.0.1", 8080),
            "extensions": {} if self.seam is None else {"mq_gateway": self.seam},
        }

    async def receive(self) -> Message:
        if not self.receives:
            await asyncio.Event().wait()
        return self.receives.pop(0)

    async def send(self, message: Message) -> None:
        async with self.changed:
            self.sent.append(message)
            self.changed.notify_all()

    def exchange(self) -> Exchange:
        return allowed(Exchange(self.scope, self.receive, self.send))

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def head(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)
