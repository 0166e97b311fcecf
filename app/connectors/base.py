"""MQConnector: the abstract interface of one authenticated connection to one mqService.

A site plugs in its own class through the entry-point group `mq_gateway.connectors`; `mq_type` in the
configuration names the entry point. Everything here runs on one event loop; no method blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from app.config.settings import DestinationSettings, ServiceSettings
from app.domain.errors import NotSupportedByBroker
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Message, Publication
from app.domain.stream import Missing, StreamStart
from app.domain.uri import MqUri


@dataclass(frozen=True, slots=True)
class Destination:
    """An mqURI with what the configuration says about it.

    With a `subscription` it is a durable named subscription of a Topic, to be consumed from.
    """

    uri: MqUri
    settings: DestinationSettings
    subscription: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message handed to a listener. `token` and `epoch` belong to the connector: an ack never crosses an epoch.

    An epoch is one connection of the connector, also where it has several; a token is unique in its subscription.

    From a stream it has its `offset`; offsets rise and are not contiguous, also over reconnects. `missing` says that
    the stream no longer has what lay between the delivery before, or the start that was asked for, and this one.
    """

    message: Message
    token: str
    epoch: int
    offset: int | None = None
    missing: Missing | None = None


class Listener(Protocol):
    """Called from the event loop; every method returns at once and raises nothing."""

    def on_message(self, delivery: Delivery) -> None:
        """A message arrived."""

    def on_lost(self) -> None:
        """The link is gone; unacked deliveries are void, the broker gives them to somebody again."""

    def on_restored(self) -> None:
        """The link is back and the subscription stands again, in a new epoch."""

    def on_withdrawn(self, token: str) -> None:
        """The delivery with this token went back: it waited too long, or could not stay. An ack now does nothing."""

    def on_cancelled(self, detail: str) -> None:
        """The broker ended this subscription and it is not coming back."""


class Subscription(ABC):
    """One consumer on one destination."""

    @abstractmethod
    def ack(self, delivery: Delivery) -> bool:
        """Acknowledge; False where the delivery belongs to an older epoch and nothing was sent."""

    @abstractmethod
    def nack(self, delivery: Delivery) -> bool:
        """Give one message back for redelivery where the broker can (see the dialect); False as for ack."""

    def reject(self, delivery: Delivery) -> bool:
        """Refuse one message for good, to where the broker keeps such; False as for ack.

        Where nothing is known of such a place it is given back instead: a message is never lost by default.
        """
        return self.nack(delivery)

    def leave(self, delivery: Delivery) -> bool:
        """Give one message back by ending what brought it, where the subscription has more than that; else False.

        For a subscription at several brokers, of which the others go on bringing.
        """
        return False

    @abstractmethod
    async def close(self, timeout: float) -> None:
        """Unsubscribe; what was delivered and not acked goes back to the destination. Idempotent, raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorContext:
    """What a connector gets from the gateway beside its own settings."""

    in_flight: int
    #: Called on every change of state, with the previous and the new one.
    on_state: Callable[[LinkState, LinkState], None]
    #: Called with what is not reported to any caller, by a name from a closed set (for a counter).
    on_event: Callable[[str], None]


class MQConnector(ABC):
    """The authenticated connection of one mqService. The constructor does no I/O."""

    #: Whether it knows what a Destination with a `subscription` is.
    has_subscriptions: ClassVar[bool] = False

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        self.service = service
        self.settings = settings
        self.context = context

    @abstractmethod
    async def start(self) -> None:
        """Begin to connect, and return without waiting for the broker."""

    @abstractmethod
    async def close(self, timeout: float) -> None:
        """Let what is in flight end within `timeout` seconds, then disconnect for good. Idempotent."""

    def reconfigure(self, settings: ServiceSettings) -> bool:
        """Go on with other settings; False where only a new connector can, and then nothing has changed.

        Where the connection is another one from now on, what is in flight ends first, and subscriptions follow.
        """
        return False

    def retry(self) -> None:  # noqa: B027 - where nothing waits there is nothing to do
        """Do not wait any longer for the next attempt to connect."""

    @property
    @abstractmethod
    def status(self) -> LinkStatus:
        """The present state of the link."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Publishes handed over and not yet answered."""

    @property
    def awaiting_reply(self) -> int:
        """Requests whose reply has not come."""
        return 0

    @property
    def buffered(self) -> int:
        """Bytes of messages it holds itself, beside those it was given to publish."""
        return 0

    @property
    def max_frame(self) -> int | None:
        """Bytes of the largest frame the broker takes, headers included; None where no such limit is known."""
        return None

    def check_name(self, uri: MqUri) -> None:  # noqa: B027 - most brokers have no rule of their own
        """Refuse a name that this broker would read as another one; raises InvalidName."""

    def quarantined(self, destination: Destination) -> bool:
        """Whether the destination rests because it keeps ending the connection."""
        return False

    def is_shared(self, destination: Destination) -> bool:
        """Whether several may consume from it at the same time; a durable subscription may have one consumer only."""
        return True

    @abstractmethod
    def check(self, destination: Destination, publication: Publication) -> None:
        """Refuse what this broker could not take; raises BadRequest and its kin. Does no I/O."""

    @abstractmethod
    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        """Publish, and return when the broker confirmed it (`confirm`) or when the frame was handed over.

        Raises BadRequest, Unavailable (nothing sent), BrokerRejected or OutcomeUnknown; `timeout` in seconds.
        """

    async def publish_together(
        self, destination: Destination, publications: Sequence[Publication], *, timeout: float, confirm: bool = True
    ) -> None:
        """Publish all of these, at least one, or none; `timeout` in seconds is for all of them together.

        Raises as `publish`, for all of them alike: with OutcomeUnknown a part may have been delivered.
        """
        raise NotSupportedByBroker("this broker has no transactions")

    async def request(self, destination: Destination, publication: Publication, *, timeout: float) -> Message:
        """Publish with a reply-to, and return the reply; its header `correlation-id` is what the responder was given.

        The correlation id of the publication travels as `mq-correlation-id`. Raises as `publish` does, and NoReply
        when none came within `timeout` seconds; ConnectionLost also where the RECEIPT had come.
        """
        raise NotSupportedByBroker(f"{self.service} has no queue for replies")

    @abstractmethod
    async def subscribe(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        timeout: float,
        start: StreamStart | None = None,
    ) -> Subscription:
        """Consume, and return when the broker took the subscription; it outlives reconnects until closed.

        `acknowledge` False: taken as delivered (plain Topics). True: each delivery is acked or nacked, at most
        `prefetch` outstanding. With `start` the stream behind a Topic is read from there, always acknowledged: an ack
        asks for more, and nothing goes back. Raises Unavailable, BrokerRejected, ConfirmTimeout, NotSupportedByBroker.
        """
