"""The one error tree. An error knows its code, whether a retry may help and what became of a publish.

    GatewayError
    +- BadRequest             the caller's mistake: nothing was sent, the same request fails again
    |  +- InvalidName, InvalidHeader, InvalidParameter, InvalidJson, MalformedRequest
    |  +- HttpsRequired, Unauthenticated (InvalidCredentials), Forbidden
    |  +- UnknownService, UnknownDestination, NotFound, MethodNotAllowed, NotAcceptable
    |  +- BodyTooLarge, UnsupportedEncoding, SchemaViolation, IdempotencyMismatch, NotSupportedByBroker,
    |     HeadersTooLarge
    +- Unavailable            nothing was sent, try again later
    |  +- BrokerUnavailable, Overloaded, KeysUnavailable, DestinationQuarantined, Draining, TooManyStreams, RateLimited,
    |     IdempotencyInProgress
    +- BrokerRejected         the broker refused this very request
    +- OutcomeUnknown         sent, no answer: it may have been delivered
    |  +- ConfirmTimeout, ConnectionLost, NoReply
    +- Internal

HTTP status numbers live in app/api/problems.py and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

# Whoever needs an error needs its code: both are to be had here.
from app.domain.codes import Code as Code  # noqa: PLC0414
from app.domain.codes import Outcome as Outcome  # noqa: PLC0414


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: where (header, parameter, part of the path) and what."""

    where: str
    message: str


class GatewayError(Exception):
    """Base of everything the gateway refuses or fails with; `str()` is the detail for a person."""

    code: ClassVar[Code] = Code.INTERNAL
    retriable: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = Outcome.NOT_SENT

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        allow: str = "",
    ) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        #: Seconds after which another try makes sense; None where the error is not about time.
        self.retry_after = retry_after
        #: The methods a MethodNotAllowed names, as for the header `Allow`.
        self.allow = allow


class BadRequest(GatewayError):
    """The caller's mistake: the same request fails again."""

    code = Code.MALFORMED_REQUEST


class MalformedRequest(BadRequest):
    """The request itself cannot be read."""


class InvalidName(BadRequest):
    """A destination name that no declared destination can have."""

    code = Code.INVALID_NAME


class InvalidHeader(BadRequest):
    """A message header that a broker must not see from a client."""

    code = Code.INVALID_HEADER


class InvalidParameter(BadRequest):
    """A query parameter or path part outside what it may be."""

    code = Code.INVALID_PARAMETER


class InvalidJson(BadRequest):
    """A JSON media type with a body that is not JSON."""

    code = Code.INVALID_JSON


class HttpsRequired(BadRequest):
    """What is asked for would go over the network in the clear."""

    code = Code.HTTPS_REQUIRED


class Unauthenticated(BadRequest):
    """No credentials where some are needed."""

    code = Code.UNAUTHENTICATED


class InvalidCredentials(Unauthenticated):
    """Credentials that do not hold (RFC 6750 section 3.1: invalid_token). `reason` is from a closed set."""

    def __init__(self, detail: str, *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class Forbidden(BadRequest):
    """Known, and not allowed."""

    code = Code.FORBIDDEN


class UnknownService(BadRequest):
    """No mqService of that name is configured."""

    code = Code.UNKNOWN_SERVICE


class UnknownDestination(BadRequest):
    """The mqService declares no destination of that name."""

    code = Code.UNKNOWN_DESTINATION


class NotFound(BadRequest):
    """No such page."""

    code = Code.NOT_FOUND


class MethodNotAllowed(BadRequest):
    """The page exists, the method does not; carries `allow`."""

    code = Code.METHOD_NOT_ALLOWED


class NotAcceptable(BadRequest):
    """The client accepts nothing that this page can answer with."""

    code = Code.NOT_ACCEPTABLE


class BodyTooLarge(BadRequest):
    """Above the configured cap or above what the broker takes in one frame."""

    code = Code.BODY_TOO_LARGE


class UnsupportedEncoding(BadRequest):
    """A Content-Encoding: bodies are taken byte for byte, never decompressed."""

    code = Code.UNSUPPORTED_ENCODING


class SchemaViolation(BadRequest):
    """Valid JSON that does not fit the destination's JSON Schema."""

    code = Code.SCHEMA_VIOLATION


class IdempotencyMismatch(BadRequest):
    """The Idempotency-Key stands for another message."""

    code = Code.IDEMPOTENCY_MISMATCH


class NotSupportedByBroker(BadRequest):
    """Valid, but this broker cannot do it."""

    code = Code.NOT_SUPPORTED_BY_BROKER


class HeadersTooLarge(BadRequest):
    """More or larger headers than the limits allow."""

    code = Code.HEADERS_TOO_LARGE


class Unavailable(GatewayError):
    """Nothing was sent; try again after `retry_after` seconds."""

    retriable = True
    code = Code.BROKER_UNAVAILABLE


class BrokerUnavailable(Unavailable):
    """The link to the mqService is not up."""


class Overloaded(Unavailable):
    """A bound of this process is reached."""

    code = Code.OVERLOADED


class KeysUnavailable(Unavailable):
    """The keys that tell whether a JWT is genuine cannot be had."""

    code = Code.KEYS_UNAVAILABLE


class DestinationQuarantined(Unavailable):
    """The destination closed the shared connection repeatedly and rests."""

    code = Code.DESTINATION_QUARANTINED


class Draining(Unavailable):
    """The process is shutting down and takes no new work."""

    code = Code.DRAINING


class TooManyStreams(Unavailable):
    """A cap on open streams is reached."""

    code = Code.TOO_MANY_STREAMS


class RateLimited(Unavailable):
    """More messages or bytes a second than the caller may send."""

    code = Code.RATE_LIMITED


class IdempotencyInProgress(Unavailable):
    """The message with this Idempotency-Key is on its way, and what becomes of it is not known yet."""

    code = Code.IDEMPOTENCY_IN_PROGRESS


class BrokerRejected(GatewayError):
    """The broker refused this request, and the refusal can be attributed to it."""

    code = Code.BROKER_REJECTED
    outcome = Outcome.REJECTED


class OutcomeUnknown(GatewayError):
    """Sent, and no RECEIPT came: the message may or may not have been delivered."""

    retriable = True
    outcome = Outcome.UNKNOWN
    code = Code.CONFIRM_TIMEOUT


class ConfirmTimeout(OutcomeUnknown):
    """The deadline passed before the RECEIPT came."""


class ConnectionLost(OutcomeUnknown):
    """The connection was lost before the RECEIPT, or the reply, came."""

    code = Code.CONNECTION_LOST


class NoReply(OutcomeUnknown):
    """The broker took the request, and no reply came: whether anybody did what it asks for is not known."""

    code = Code.NO_REPLY


class Internal(GatewayError):
    """A defect of the gateway."""

    outcome = Outcome.UNKNOWN
