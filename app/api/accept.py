"""Content negotiation: a stream is a stream or nothing; a message that is taken comes as it is, or in JSON."""

from __future__ import annotations

from app.api.request_headers import RequestHeaders
from app.domain.errors import NotAcceptable

EVENT_STREAM = "text/event-stream"
JSON = "application/json"
OCTETS = "application/octet-stream"


def check_accepts_events(headers: RequestHeaders) -> None:
    """Raises NotAcceptable where the client would not take an event stream; no Accept takes anything."""
    if not _accept(headers):
        return
    weight = _wanted(headers, EVENT_STREAM)
    if weight <= 0:
        raise NotAcceptable(f"this is an event stream: Accept has to allow {EVENT_STREAM}")


def wants_octets(headers: RequestHeaders) -> bool:
    """Whether the client would rather have a message's bytes than JSON; raises NotAcceptable where neither."""
    if not _accept(headers):
        return False
    json, octets = _wanted(headers, JSON), _wanted(headers, OCTETS)
    if json <= 0 and octets <= 0:
        raise NotAcceptable(f"messages come as {JSON} or, one at a time, as {OCTETS}: Accept has to allow one of them")
    return octets > json


def is_event_source(headers: RequestHeaders) -> bool:
    """Whether the client is a browser's EventSource, which gives up for good on any status but 200."""
    return _accept(headers).strip().lower() == EVENT_STREAM


def _accept(headers: RequestHeaders) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers.pairs if name == b"accept")


def _wanted(headers: RequestHeaders, media_type: str) -> float:
    """The weight of a media type, 0 where it is not accepted.

    From the most specific range to the least: the first that is there decides (RFC 9110 section 12.5.1).
    """
    weights = dict(_range(part) for part in _accept(headers).split(","))
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _weight(value.strip())
    return name, 1.0


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
