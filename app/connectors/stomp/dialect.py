"""What differs between brokers that all speak STOMP 1.2. Recognised by CONNECTED's `server` header.

A dialect is pure: it turns our words into a broker's, and knows the broker's limits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
#: Bytes of a property in AMQP 0-9-1 (section 4.2.5.3, "short string").
_SHORT_STRING = 255


def line_bytes(name: str, value: str) -> int:
    """Bytes of a header line on the wire: STOMP 1.2 escapes colon and backslash (section "Value Encoding")."""
    return len(name) + 2 + len(value.encode()) + value.count(":") + value.count("\\")


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
    #: Seconds after which the broker ends a connection that holds an unacked delivery, where none are configured.
    consumer_timeout: ClassVar[float | None] = None
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
            raise _bad_name("white space at its ends, which brokers cut off")

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

    # Frames.

    def send_headers(self, publication: Publication, reply_to: str | None = None) -> Headers:
        """Headers of SEND beside destination, content-type and receipt; `reply_to` is a STOMP destination."""
        if publication.delay_ms is not None or publication.group is not None:
            raise NotSupportedByBroker("delay and group are not mapped to this broker")
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
        if reply_to is not None:
            headers["reply-to"] = reply_to
        return headers

    def ttl(self, milliseconds: int) -> Headers:
        """The time to live, in this broker's header."""
        return {"expires": str(int(time.time() * 1000) + milliseconds)}

    def declare_headers(self, destination: Destination) -> Headers:
        """Sent with the first SEND and SUBSCRIBE of a session: the arguments of the queue behind it."""
        return dict(destination.settings.arguments)

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        """Headers of SUBSCRIBE beside destination, id, ack and receipt."""
        headers = self.declare_headers(destination)
        if prefetch is not None:
            headers[self.prefetch_header] = str(prefetch)
        return headers

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


class RabbitMQ(Dialect):
    """RabbitMQ's STOMP plugin. Facts: rabbitmq.com/docs/stomp and observed on 3.10.8."""

    name = "RabbitMQ"
    max_header_line = 100 * 1024
    nack_requeues = True
    keeps_unacked = True
    declares_once = True  # observed: a SEND to a queue deleted meanwhile gets a RECEIPT, and is lost
    consumer_timeout = 1800.0  # rabbitmq.com/docs/consumers, since 3.8.17
    #: Headers of SEND that travel as short strings: a longer one cannot be delivered over AMQP 0-9-1.
    properties: ClassVar[frozenset[str]] = frozenset(
        {"amqp-message-id", "app-id", "correlation-id", "reply-to", "type"}
    )

    @property
    def has_streams(self) -> bool:
        return not _VERSION.search(self.server) or _version(self.server) >= (3, 9, 0)

    def check_name(self, uri: MqUri) -> None:
        # %2F is how a slash travels; a literal one would become a slash, that is another queue.
        if "%2f" in uri.name.lower():
            raise _bad_name("a literal %2F, which RabbitMQ takes for a slash")

    def path(self, destination: Destination) -> str:
        settings, uri = destination.settings, destination.uri
        if settings.destination is not None or not uri.is_queue:
            return Dialect.path(self, destination)
        if not settings.declare:
            return "/amq/queue/" + self.quote(uri.name)
        if uri.name.startswith("amq."):  # observed: access_refused, and the connection is closed
            raise _bad_name("the prefix amq., which RabbitMQ keeps for itself")
        return Dialect.path(self, destination)

    def quote(self, name: str) -> str:
        return name.replace("/", "%2F")

    def unquote(self, name: str) -> str:
        return name.replace("%2F", "/")

    def ttl(self, milliseconds: int) -> Headers:
        return {"expiration": str(milliseconds)}

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        headers = Dialect.subscribe_headers(self, destination, prefetch)
        if not destination.uri.is_queue and destination.settings.destination is None:
            # The queue behind a Topic's subscription goes with the connection; RabbitMQ 4 deprecates transient
            # queues that are not exclusive.
            headers |= {"exclusive": "true", "auto-delete": "true", "durable": "false"}
        return headers

    def send_headers(self, publication: Publication, reply_to: str | None = None) -> Headers:
        headers = Dialect.send_headers(self, publication, reply_to)
        headers["amqp-message-id"] = publication.message_id
        return headers

    def check_frame(self, path: str, headers: Mapping[str, str], publication: Publication) -> None:
        for name in self.properties & headers.keys():
            if len(headers[name].encode()) > _SHORT_STRING:
                raise InvalidHeader(
                    f"header {name!r} becomes an AMQP property, which has at most {_SHORT_STRING} bytes",
                    errors=[FieldError(name, f"at most {_SHORT_STRING} bytes")],
                )
        Dialect.check_frame(self, path, headers, publication)

    def message_id(self, headers: Mapping[str, str]) -> str:
        return headers.get("mq-message-id") or headers.get("amqp-message-id") or headers.get("message-id", "")


class ActiveMQ(Dialect):
    """ActiveMQ Classic. Facts: activemq.apache.org/components/classic/documentation/stomp, observed on 5.17."""

    name = "ActiveMQ"
    prefetch_header = "activemq.prefetchSize"
    #: It looks once in an interval and is content with a frame it sent since: silent for two, observed on 5.17.
    silent_intervals = 2.5

    def declare_headers(self, destination: Destination) -> Headers:
        return {}  # queue arguments are RabbitMQ's


class Artemis(ActiveMQ):
    """ActiveMQ Artemis, with the acceptor's prefixes /queue/ and /topic/. Prefetch there is in bytes."""

    name = "Artemis"

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        return {}


def _speakable(uri: MqUri) -> MqUri | None:
    """An mqURI that can be written and read back, else None: others name destinations as they like."""
    try:
        check_name(uri.name)
    except InvalidName:
        return None
    return uri


def _bad_name(reason: str) -> InvalidName:
    return InvalidName(f"the name has {reason}", errors=[FieldError("name", reason)])


_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
#: rabbitmq.com/docs/stomp: `stomp.max_frame_size`, 4 MiB since 3.12.2; above it the socket is closed without ERROR.
_RABBITMQ_MAX_FRAME = 4 * 1024 * 1024
_ACTIVEMQ_MAX_FRAME = 100 * 1024 * 1024


def _version(server: str) -> tuple[int, int, int]:
    found = _VERSION.search(server)
    major, minor, patch = found.groups(default="0") if found else ("0", "0", "0")
    return int(major), int(minor), int(patch)


def recognise(server: str, max_frame: int | None = None) -> Dialect:
    """The dialect for a `server` header such as `RabbitMQ/3.10.8`; `max_frame` overrides what is known of it."""
    product = server.lower()
    if product.startswith("rabbitmq"):
        known = _RABBITMQ_MAX_FRAME if _version(server) >= (3, 12, 2) else None
        return RabbitMQ(server, max_frame or known)
    if "artemis" in product:
        return Artemis(server, max_frame)
    if "activemq" in product:
        return ActiveMQ(server, max_frame or _ACTIVEMQ_MAX_FRAME)
    return Dialect(server, max_frame)
