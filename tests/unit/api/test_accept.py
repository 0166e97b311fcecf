"""Who takes an event stream, and who is an EventSource."""

from __future__ import annotations

import pytest

from app.api.accept import check_accepts_events, is_event_source, wants_octets
from app.api.request_headers import RequestHeaders
from app.domain.errors import NotAcceptable


def _headers(*values: str) -> RequestHeaders:
    return RequestHeaders([(b"accept", value.encode()) for value in values])


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("*/*",),
        ("text/event-stream",),
        ("TEXT/Event-Stream",),
        ("text/*;q=0.1",),
        ("application/json, text/event-stream;q=0.5",),
        ("application/json", "text/event-stream"),
        ("text/event-stream; q=1, */*; q=0",),
        ("text/html;level=1;q=0.4, */*",),
    ],
)
def test_a_stream_is_taken(values: tuple[str, ...]) -> None:
    check_accepts_events(_headers(*values))


@pytest.mark.parametrize(
    "value",
    ["application/json", "text/event-stream;q=0, */*", "*/*;q=0", "text/html", "text/*;q=0, */*", "*/*;q=x"],
)
def test_a_stream_is_not_taken(value: str) -> None:
    with pytest.raises(NotAcceptable, match="text/event-stream"):
        check_accepts_events(_headers(value))


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("text/event-stream", True),
        (" text/event-stream ", True),
        ("text/event-stream, */*", False),
        ("*/*", False),
    ],
)
def test_an_event_source_accepts_exactly_streams(value: str, is_one: bool) -> None:
    assert is_event_source(_headers(value)) is is_one


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        ("", False),
        ("*/*", False),
        ("application/*", False),
        ("application/json", False),
        ("application/json, application/octet-stream", False),
        ("application/octet-stream", True),
        ("application/octet-stream, */*;q=0.1", True),
        ("application/json;q=0, */*", True),
    ],
)
def test_bytes_are_for_who_prefers_them(value: str, octets: bool) -> None:
    assert wants_octets(_headers(value)) is octets


@pytest.mark.parametrize("value", ["text/html", "*/*;q=0", "text/event-stream"])
def test_a_message_is_json_or_bytes(value: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        wants_octets(_headers(value))
