"""The id of several Topics: what it says, what it is not believed, and events that carry it."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.uri import DestinationType, MqUri
from app.wire import sse
from app.wire.vector import MAX_LENGTH, UNTOLD, Vector, positions, tag
from tests.unit.gateway.fakes import message
from tests.unit.wire.event_source import EventSource

POSITIONS = st.from_regex(r"[0-9A-Za-z_-]{8}\.[0-9]{1,15}|s\.(-1|[0-9]{1,18})|-|", fullmatch=True)
A, B, C = (MqUri("demo", DestinationType.TOPICS, name) for name in "abc")


def _of(**known: str) -> str:
    """The id of the Topics a, b and c that are named."""
    uris = [MqUri("demo", DestinationType.TOPICS, name) for name in known]
    vector = Vector(uris)
    for number, position in enumerate(known.values()):
        vector.move(number, position.encode())
    return bytes(vector).decode()


@given(st.lists(POSITIONS, min_size=1, max_size=32))
def test_what_it_says_is_read_again(known: list[str]) -> None:
    uris = [MqUri("demo", DestinationType.TOPICS, str(number)) for number in range(len(known))]
    vector = Vector(uris)
    for number, position in enumerate(known):
        vector.move(number, position.encode())
    text = bytes(vector).decode()
    assert re.fullmatch(r"v\.[0-9A-Za-z_.,-]+", text)
    assert positions(text, uris) == known
    assert positions(text, uris[::-1]) == known[::-1]


def test_the_longest_one_fits() -> None:
    uris = [MqUri("demo", DestinationType.TOPICS, str(number)) for number in range(32)]
    vector = Vector(uris)
    for number in range(32):
        vector.move(number, b"epoch-_8." + b"9" * 15)
    assert len(bytes(vector)) <= MAX_LENGTH <= 1024
    assert positions(bytes(vector).decode(), uris) == ["epoch-_8." + "9" * 15] * 32


def test_it_is_bound_to_its_topics() -> None:
    text = _of(a="epochepo.1", b="s.7")
    assert positions(text, [A, B]) == ["epochepo.1", "s.7"]
    assert positions(text, [B]) == ["s.7"]
    assert positions(text, [C, A]) == [UNTOLD, "epochepo.1"]
    assert positions(text, [MqUri("other", DestinationType.TOPICS, "a")]) == [UNTOLD]


def test_a_topic_none_of_whose_events_was_seen_has_a_place_in_it() -> None:
    assert positions(bytes(Vector([A, B])).decode(), [A, B, C]) == ["", "", UNTOLD]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v.",
        "v",
        "epochepo.1",
        "s.1",
        f"{_of(a='s.1')},",
        f"{_of(a='s.1')}, ",
        f"{_of(a='s.1')}\n",
        f"x{_of(a='s.1')}",
        f"{_of(a='s.1')},{tag(A)}s.1",
        f"{_of(a='s.1')},{tag(B)}\u0661",
        f"{_of(a='s.1')},short",
        _of(a="s.1", b="x" * 25),
        _of(a="s.1") + f",{tag(B)}s.1" * 100,
    ],
)
def test_what_is_not_wholly_one_says_nothing(text: str) -> None:
    assert positions(text, [A, B]) == [UNTOLD, UNTOLD]


@given(st.text(max_size=60) | st.from_regex(r"v\.[0-9A-Za-z_.,-]{0,90}", fullmatch=True))
def test_whatever_comes_is_no_fault(text: str) -> None:
    assert len(positions(text, [A, B])) == 2


BODIES = st.binary(max_size=60) | st.sampled_from(
    [b"", b"\n\n", b"\r\n\r\n", b"a\n\nid: 9\n\nb", b'{"id":"epochepo.1"}', b'{"id":"epochepo.2","x":1}', b"id: x"]
)


@given(st.lists(BODIES, max_size=5), st.sampled_from(["data", "envelope", "cloudevents"]), st.integers(0, 2))
def test_events_carry_it_and_are_what_they_were(bodies: list[bytes], form: str, number: int) -> None:
    """A gap and an event without an id are among them."""
    vector = Vector([A, B, C])
    known = [f"epochepo.{at}" for at in range(1, len(bodies) + 1)]
    encoded = [sse.FORMATS[form](message(body), position) for body, position in zip(bodies, known, strict=True)]
    gap = sse.gap("demo::Topics::a", "slow", 3, position="epochepo.99")
    status = sse.json_event("status", {"service": "demo", "link": "up"})
    before = EventSource.read(b"".join([*encoded, status, gap]))
    after = EventSource.read(vector.stamp(number, b"".join([*encoded, status, gap]), envelopes=form == "envelope"))
    assert len(before.events) == len(after.events)
    for was, now in zip(before.events, after.events, strict=True):
        assert (was.type, _without_id(was.data, form)) == (now.type, _without_id(now.data, form))
        if not was.last_event_id:
            assert not now.last_event_id
            continue
        place = positions(now.last_event_id, [A, B, C])
        assert place[number] == was.last_event_id
        assert place[:number] + place[number + 1 :] == ["", ""]
        if form == "envelope" and now.type == "message":
            assert json.loads(now.data)["id"] == now.last_event_id
    assert bytes(vector).decode() == after.last_event_id


def _without_id(data: str, form: str) -> object:
    if form != "envelope":
        return data
    value = json.loads(data)
    value.pop("id", None)
    return value


def test_an_id_alone_moves_it_too() -> None:
    vector = Vector([A, B])
    assert vector.stamp(1, sse.position_only("s.5"), envelopes=False) == f"id: v.{tag(A)},{tag(B)}s.5\n\n".encode()
    assert vector.stamp(0, b"", envelopes=True) == b""
    many = b"".join(sse.position_only(f"s.{number}") for number in range(6, 9)) + sse.comment() + b"id: s.9\n\n"
    stamped = vector.stamp(1, many, envelopes=False)
    assert stamped.count(b"\n") == many.count(b"\n")
    assert positions(EventSource.read(stamped).last_event_id, [A, B]) == ["", "s.9"]
    vector.move(1, b"s.5")
    assert positions(bytes(vector).decode(), [A, B]) == ["", "s.5"]


def test_every_event_moves_it_a_little() -> None:
    vector = Vector([A, B])
    events = b"".join(sse.message_data(message(b"x"), f"s.{number}") for number in range(5))
    seen = [
        positions(event.last_event_id, [A, B])
        for event in EventSource.read(vector.stamp(0, events, envelopes=False)).events
    ]
    assert seen == [[f"s.{number}", ""] for number in range(5)]
    assert all(one != other for one, other in pairwise(seen))
