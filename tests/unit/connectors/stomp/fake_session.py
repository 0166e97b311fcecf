"""A real Session without a socket: frames that go out are kept, frames that come in are given by the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.connectors.stomp.addresses import Address
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.frames import Frame
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.connectors.stomp.session import Session
from app.domain.link import LinkFailed, LinkFault


class FakeSession(Session):
    """Made inside a running loop; `sent` has every frame that would have gone to the broker."""

    def __init__(self, epoch: int = 1, dialect: Dialect | None = None) -> None:
        self.told: list[str] = []
        super().__init__(epoch, Address("broker", "192.0.2.1", 61613), self.told.append)
        self.dialect = dialect or RabbitMQ("RabbitMQ/3.10.8")
        self.sent: list[Frame] = []
        self.aborted: list[LinkFailed] = []
        setattr(self.transport, "transmit", self.sent.append)  # noqa: B010 - a method gives way
        setattr(self.transport, "abort", self.aborted.append)  # noqa: B010
        self.receive("CONNECTED", {"version": "1.2"})

    def commands(self) -> list[str]:
        return [frame.cmd for frame in self.sent]

    def last(self, command: str) -> dict[str, Any]:
        """Headers of the latest frame of that kind."""
        return dict([frame for frame in self.sent if frame.cmd == command][-1].headers)

    def receive(self, command: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self._on_frame(Frame(command, dict(headers or {}), body))

    def confirm(self, command: str) -> None:
        """The RECEIPT of the latest frame of that kind."""
        self.receive("RECEIPT", {"receipt-id": self.last(command)["receipt"]})

    def lose(self) -> None:
        self._on_closed(LinkFailed(LinkFault.CLOSED_BY_BROKER, "gone"))
