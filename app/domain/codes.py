"""The closed sets of what becomes of a publish, and of why a request is refused."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a publish. Every publish ends in exactly one of these."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


class Code(StrEnum):
    """The closed set of problem codes of the HTTP contract."""

    INVALID_NAME = "invalid_name"
    INVALID_HEADER = "invalid_header"
    INVALID_PARAMETER = "invalid_parameter"
    INVALID_JSON = "invalid_json"
    MALFORMED_REQUEST = "malformed_request"
    HTTPS_REQUIRED = "https_required"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_SERVICE = "unknown_service"
    UNKNOWN_DESTINATION = "unknown_destination"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    SCHEMA_VIOLATION = "schema_violation"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    NOT_SUPPORTED_BY_BROKER = "not_supported_by_broker"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_STREAMS = "too_many_streams"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL = "internal"
    BROKER_REJECTED = "broker_rejected"
    BROKER_UNAVAILABLE = "broker_unavailable"
    OVERLOADED = "overloaded"
    KEYS_UNAVAILABLE = "keys_unavailable"
    DESTINATION_QUARANTINED = "destination_quarantined"
    DRAINING = "draining"
    CONFIRM_TIMEOUT = "confirm_timeout"
    CONNECTION_LOST = "connection_lost"
    NO_REPLY = "no_reply"
