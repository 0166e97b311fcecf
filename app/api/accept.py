"""Content negotiation for the one media type that is not negotiable: a stream is a stream or nothing."""

from __future__ import annotations

from app.api.request_headers import RequestHeaders
from app.domain.errors import NotAcceptable

EVENT_STREAM = "text/event-stream"
#: From the most specific range to the least: the first that is there decides (RFC 9110 section 12.5.1).
_RANGES = (EVENT_STREAM, "text/*", "*/*")


def check_accepts_events(headers: RequestHeaders) -> None:
    """Raises NotAcceptable where the client would not take an event stream; no Accept takes anything."""
    text = _accept(headers)
    if not text:
        return
    weights = dict(_range(part) for part in text.split(","))
    weight = next((weights[name] for name in _RANGES if name in weights), 0.0)
    if weight <= 0:
        raise NotAcceptable(f"this is an event stream: Accept has to allow {EVENT_STREAM}")


def is_event_source(headers: RequestHeaders) -> bool:
    """Whether the client is a browser's EventSource, which gives up for good on any status but 200."""
    return _accept(headers).strip().lower() == EVENT_STREAM


def _accept(headers: RequestHeaders) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers.pairs if name == b"accept")


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
