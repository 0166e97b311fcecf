"""Message headers: which ones a client may set, and which of a broker's ones a consumer sees.

Header *names* are not escaped by STOMP client libraries and a single header such as `CC` or `expires:abc`
makes a broker close the connection that everybody shares; so this is an allow-list, checked before the wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.domain.errors import FieldError, InvalidHeader
from app.domain.message import Publication

MAX_HEADERS = 64
#: Bytes of name and value together, before STOMP's escapes.
MAX_HEADER_BYTES = 8192
#: Bytes of a message id, correlation id, type or group: a short string of AMQP 0-9-1.
MAX_PROPERTY_BYTES = 255
#: Milliseconds: what a broker's 32-bit timer can hold, about 49 days.
MAX_MILLISECONDS = (1 << 32) - 1

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
#: C0 and C1 controls, DEL and lone surrogates (bytes that were not UTF-8).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")

#: Compared without case. STOMP's own, the brokers' own, and what the typed fields of a publication set.
RESERVED_NAMES = frozenset(
    """
    accept-version ack amq-msg-type amqp-message-id auto-delete bcc browser cc client-id cluster-id
    consumer-window-size content-encoding
    content-length content-type correlation-id destination destination-type durable durable-subscription-name
    exclusive expiration expires heart-beat host id login message message-id no-local passcode persistent
    prefetch-count priority receipt receipt-id redelivered reply-to requeue selector server session subscription
    subscription-type timestamp transaction transformation transformation-error type user-id version
    """.split()
)
RESERVED_PREFIXES = ("x-", "activemq.", "amq_", "_amq_", "jms", "mq-", "_hornetq", "__amq")

#: What a broker puts into MESSAGE for its own purposes, and what leaks from a producer's SEND frame.
_TRANSPORT_NAMES = frozenset(
    """
    __AMQ_CID _AMQ_DUPL_ID _AMQ_GROUP_ID _AMQ_SCHED_DELIVERY _AMQ_VALIDATED_USER
    ack amqp-message-id content-length content-type destination destination-type id message-id mq-message-id receipt
    redelivered subscription transaction x-stream-offset
    """.split()
)


def _refuse(name: str, reason: str) -> InvalidHeader:
    return InvalidHeader(f"header {name[:128]!r}: {reason}", errors=[FieldError(name[:128], reason)])


def is_reserved(name: str) -> bool:
    """Whether only the gateway or the broker may set this header."""
    lower = name.lower()
    return lower in RESERVED_NAMES or lower.startswith(RESERVED_PREFIXES)


def check_value(name: str, value: str) -> None:
    """Raises InvalidHeader for control characters, invalid UTF-8 and values that are too long."""
    if _CONTROL.search(value):
        raise _refuse(name, "control characters and invalid UTF-8 are not allowed in a value")
    if len(name) + len(value.encode()) > MAX_HEADER_BYTES:
        raise _refuse(name, f"name and value have more than {MAX_HEADER_BYTES} bytes")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what a broker must not see from a client; raises InvalidHeader."""
    if len(headers) > MAX_HEADERS:
        raise InvalidHeader(
            f"{len(headers)} message headers, at most {MAX_HEADERS} are allowed",
            errors=[FieldError("headers", f"at most {MAX_HEADERS}")],
        )
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise _refuse(name, "a name has 1 to 128 of the characters A-Z a-z 0-9 _ . -")
        if is_reserved(name):
            raise _refuse(name, "this name is reserved for the gateway or the broker")
        check_value(name, value)


def check_publication(publication: Publication) -> None:
    """Refuse headers and typed fields that a broker must not see; raises InvalidHeader. The body is not looked at."""
    check_headers(publication.headers)
    check_content_type(publication.content_type)
    _check_property("message-id", publication.message_id)
    _check_property("correlation-id", publication.correlation_id)
    _check_property("type", publication.type)
    _check_property("group", publication.group)
    _check_number("ttl", publication.ttl_ms, 1, MAX_MILLISECONDS)
    _check_number("delay", publication.delay_ms, 1, MAX_MILLISECONDS)
    _check_number("priority", publication.priority, 0, 9)


def _check_property(name: str, value: str | None) -> None:
    if value is None:
        return
    check_value(name, value)
    if not 0 < len(value.encode()) <= MAX_PROPERTY_BYTES:
        raise _refuse(name, f"1 to {MAX_PROPERTY_BYTES} bytes")


def _check_number(name: str, value: int | None, low: int, high: int) -> None:
    # A negative time to live makes RabbitMQ close the connection.
    if value is not None and not low <= value <= high:
        raise _refuse(name, f"a whole number from {low} to {high}")


def check_content_type(content_type: str) -> None:
    """Raises InvalidHeader unless it is 1-255 printable ASCII characters."""
    if not _MEDIA_TYPE.fullmatch(content_type):
        raise _refuse("content-type", "1 to 255 printable ASCII characters")


def visible(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a received frame that are the producer's, without those of the transport."""
    return {name: value for name, value in headers.items() if name not in _TRANSPORT_NAMES}
