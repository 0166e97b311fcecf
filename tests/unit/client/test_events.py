"""Reading server-sent events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.client import events
from app.client.events import EventReader, EventTooLarge, ServerEvent


def _read(*chunks: bytes) -> list[ServerEvent]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"data: a\n\n", ServerEvent("message", "a", "")),
        (b"data:a\r\ndata\r\ndata: b\r\n\r\n", ServerEvent("message", "a\n\nb", "")),
        (b"data: a\rid: 1\r\rx", ServerEvent("message", "a", "1")),
        (b"\xef\xbb\xbfevent: gap\nid: 2\ndata: {}\n\n", ServerEvent("gap", "{}", "2")),
        (b"data:  a\n\n", ServerEvent("message", " a", "")),
        (b": comment\nunknown: x\ndata: \xff\n\n", ServerEvent("message", "\ufffd", "")),
        (b"id: 1\nid: a\x00b\ndata: a\n\n", ServerEvent("message", "a", "1")),
    ],
)
def test_sse_case_07_reads_what_the_standard_says(stream: bytes, event: ServerEvent) -> None:
    assert _read(stream) == [event]


@pytest.mark.parametrize("stream", [b"", b"data: a\n", b"event: x\n\n", b":\n\n", b"\n\n"])
def test_without_data_and_a_blank_line_there_is_no_event(stream: bytes) -> None:
    assert _read(stream) == []


def test_the_id_stays_and_the_name_does_not() -> None:
    assert _read(b"id: 1\nevent: x\ndata: a\n\ndata: b\n\n") == [
        ServerEvent("x", "a", "1"),
        ServerEvent("message", "b", "1"),
    ]


def test_sse_case_05_an_id_counts_from_the_blank_line_even_without_data() -> None:
    reader = EventReader("0")
    assert list(reader.feed(b"id: 7\n")) == []
    assert reader.last_event_id == "0"
    assert list(reader.feed(b"\n")) == []
    assert reader.last_event_id == "7"


def test_sse_case_11_retry_is_a_number_of_milliseconds_or_nothing() -> None:
    reader = EventReader()
    list(reader.feed(b"retry: soon\n"))
    assert reader.retry_ms is None
    list(reader.feed(b"retry: 1500\n\n"))
    assert reader.retry_ms == 1500


_STREAM = b"\xef\xbb\xbfid: 1\r\ndata: a\r\rdata: \xc3\xa9\n\nevent: gap\r\ndata: {}\r\n\r\n: end\n"


@given(st.lists(st.integers(0, len(_STREAM)), max_size=12))
def test_sse_case_24_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(_STREAM)]
    chunks = [_STREAM[start:end] for start, end in pairwise(bounds)]
    assert _read(*chunks) == _read(_STREAM)
    assert len(_read(_STREAM)) == 3


@pytest.mark.parametrize("chunk", [b"data: 0123456789", b"data: 0123\n"])
def test_an_endless_line_or_event_is_refused(monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 12)
    with pytest.raises(EventTooLarge):
        _read(*[chunk] * 4)
