"""What differs between brokers that all speak STOMP 1.2. Recognised by CONNECTED's `server` header.

A dialect is pure: it turns our words into a broker's, and knows the broker's limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from app.connectors.base import Destination
from app.domain.errors import BodyTooLarge, FieldError, InvalidHeader, InvalidName, NotSupportedByBroker
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri, check_name

Headers = dict[str, str]

_PREFIX = {DestinationType.QUEUES: "/queue/", DestinationType.TOPICS: "/topic/"}
_TYPE = {"/queue/": DestinationType.QUEUES, "/topic/": DestinationType.TOPICS}

#: SEND, content-length and receipt with their values, the line ends around, heart-beats before, the final NUL.
_FRAME_OVERHEAD = 128


def line_bytes(name: str, value: str) -> int:
    """Bytes of a header line on the wire: STOMP 1.2 escapes colon and backslash (section "Value Encoding")."""
    return len(name) + 2 + len(value.encode()) + value.count(":") + value.count("\\")


class ReplyQueues(Enum):
    """How a connection gets a queue of its own, `/temp-queue/<name>` in a reply-to, which ends with it."""

    NONE = auto()
    #: Naming it in a SEND makes it, and subscribes to it under its own path as the id.
    IMPLIED = auto()
    #: It is there from a SUBSCRIBE on.
    SUBSCRIBED = auto()


@dataclass(frozen=True, slots=True)
class Dialect:
    """The common denominator, used until a broker is recognised and for brokers that are not."""

    server: str = ""
    max_frame: int | None = None

    #: What a broker is called in `GET /mq`.
    name: ClassVar[str] = "unknown"
    #: Longest encoded header line, in bytes; ActiveMQ's is the shortest known, so it is the safe assumption.
    max_header_line: ClassVar[int] = 10240
    prefetch_header: ClassVar[str] = "prefetch-count"
    #: Whether NACK puts a message back on its queue; otherwise only closing the subscription does.
    nack_requeues: ClassVar[bool] = False
    #: Whether closing a subscription leaves unacked messages locked to the connection.
    keeps_unacked: ClassVar[bool] = False
    #: Whether the broker declares a queue once for each connection, and later takes it for granted.
    declares_once: ClassVar[bool] = False
    #: Whether a SUBSCRIBE that names what is not there ends the connection: durable subscriptions are read on another.
    reads_apart: ClassVar[bool] = False
    #: Seconds after which the broker ends a connection that holds an unacked delivery, where none are configured.
    consumer_timeout: ClassVar[float | None] = None
    #: Whether a SEND in a transaction is answered at once; otherwise the RECEIPT comes after COMMIT.
    answers_before_commit: ClassVar[bool] = False
    reply_queues: ClassVar[ReplyQueues] = ReplyQueues.NONE
    #: Whether several addresses are likely to be brokers that know nothing of each other.
    may_be_alone: ClassVar[bool] = False
    #: Heart-beat intervals without a byte after which the broker is given up.
    silent_intervals: ClassVar[float] = 2.0

    @property
    def has_streams(self) -> bool:
        """Whether a Topic can have a stream behind it."""
        return False

    # Names.

    def check_name(self, uri: MqUri) -> None:
        """Refuse a name that this broker would read as another; raises InvalidName."""
        if uri.name != uri.name.strip():
            raise bad_name("white space at its ends, which brokers cut off")

    def path(self, destination: Destination) -> str:
        """The STOMP destination."""
        if destination.settings.destination is not None:
            return destination.settings.destination
        return _PREFIX[destination.uri.type] + self.quote(destination.uri.name)

    def quote(self, name: str) -> str:
        """The name as part of a STOMP destination."""
        return name

    def unquote(self, name: str) -> str:
        """The reverse of `quote`."""
        return name

    def uri_of(self, service: str, path: str) -> MqUri | None:
        """The mqURI behind a STOMP destination such as a reply-to; None for what has none."""
        for prefix, kind in _TYPE.items():
            if path.startswith(prefix):
                return _speakable(MqUri(service, kind, self.unquote(path.removeprefix(prefix))))
        return None

    # Durable named subscriptions of Topics.

    def check_subscription(self, destination: Destination, client_id: str | None) -> None:
        """Refuse a durable subscription that this broker cannot keep; raises NotSupportedByBroker."""
        raise NotSupportedByBroker(
            f"{destination.uri} has `subscriptions`, which {self.server or self.name} cannot keep"
        )

    def source(self, destination: Destination) -> str:
        """The STOMP destination of those who consume."""
        return self.path(destination)

    def is_shared(self, _destination: Destination) -> bool:
        """Whether several may consume at the same time."""
        return True

    # Frames.

    def send_headers(self, publication: Publication, reply_to: str | None = None) -> Headers:
        """Headers of SEND beside destination, content-type and receipt; `reply_to` is a STOMP destination."""
        headers = {**publication.headers, "mq-message-id": publication.message_id}
        optional = {
            "correlation-id": publication.correlation_id,
            "type": publication.type,
            "priority": publication.priority,
        }
        headers.update({name: str(value) for name, value in optional.items() if value is not None})
        if publication.persistent:
            headers["persistent"] = "true"  # ActiveMQ takes only this spelling
        if publication.ttl_ms is not None:
            headers.update(self.ttl(publication.ttl_ms))
        if publication.delay_ms is not None:
            headers.update(self.delay(publication.delay_ms))
        if publication.group is not None:
            headers.update(self.group(publication.group))
        if reply_to is not None:
            headers["reply-to"] = reply_to
        return headers

    def ttl(self, milliseconds: int) -> Headers:
        """The time to live, in this broker's header."""
        return {"expires": str(int(time.time() * 1000) + milliseconds)}

    def delay(self, _milliseconds: int) -> Headers:
        """Delivery after this time, in this broker's header; raises NotSupportedByBroker."""
        raise NotSupportedByBroker(f"{self.name} does not deliver later")

    def group(self, _name: str) -> Headers:
        """One consumer for all messages of a group, in this broker's header; raises NotSupportedByBroker."""
        raise NotSupportedByBroker(f"{self.name} has no message groups")

    def address_headers(self, _destination: Destination) -> Headers:
        """Headers of every SEND that say what kind of destination it goes to, where the path does not."""
        return {}

    def declare_headers(self, destination: Destination) -> Headers:
        """Sent with the first SEND and SUBSCRIBE of a session: the arguments of the queue behind it."""
        return dict(destination.settings.arguments)

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        """Headers of SUBSCRIBE beside destination, id, ack and receipt."""
        headers = self.declare_headers(destination)
        if prefetch is not None:
            headers[self.prefetch_header] = str(prefetch)
        return headers

    def ended_somebody(self, _text: str) -> bool:
        """Whether this ERROR tells of a subscription that the broker ended, and not which."""
        return False

    # Limits and identity.

    def check_frame(self, path: str, headers: Mapping[str, str], publication: Publication) -> None:
        """Refuse a frame that would make the broker close the connection; raises InvalidHeader or BodyTooLarge."""
        size = _FRAME_OVERHEAD + len(publication.body)
        size += line_bytes("destination", path) + line_bytes("content-type", publication.content_type)
        for name, value in headers.items():
            line = line_bytes(name, value)
            if line > self.max_header_line:
                raise InvalidHeader(
                    f"header {name!r} takes {line} bytes on the wire, this broker takes {self.max_header_line}",
                    errors=[FieldError(name, f"at most {self.max_header_line} bytes with STOMP's escapes")],
                )
            size += line
        if self.max_frame is not None and size > self.max_frame:
            raise BodyTooLarge(
                f"{len(publication.body)} bytes of body make a frame of {size}, this broker takes {self.max_frame}"
            )

    def message_id(self, headers: Mapping[str, str]) -> str:
        """Ours where a gateway published it, else the broker's."""
        return headers.get("mq-message-id") or headers.get("message-id", "")


def _speakable(uri: MqUri) -> MqUri | None:
    """An mqURI that can be written and read back, else None: others name destinations as they like."""
    try:
        check_name(uri.name)
    except InvalidName:
        return None
    return uri


def bad_name(reason: str) -> InvalidName:
    """What is wrong with the name in a path."""
    return InvalidName(f"the name has {reason}", errors=[FieldError("name", reason)])
