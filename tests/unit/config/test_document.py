"""Trees of text and how they merge."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from app.config.document import Document, Value, anchored, merged, text
from app.config.errors import Place


def _merged(*values: dict[str, Value]) -> dict[str, Value]:
    return merged(Document(value) for value in values).values


def test_maps_merge_and_lists_are_replaced() -> None:
    first: dict[str, Value] = {"server": {"port": "1", "hosts": ["a", "b"]}, "x": "y"}
    second: dict[str, Value] = {"server": {"hosts": ["c"]}, "z": None}
    assert _merged(first, second) == {"server": {"port": "1", "hosts": ["c"]}, "x": "y", "z": None}


def test_merging_leaves_its_input_alone() -> None:
    first: dict[str, Value] = {"a": {"b": "1"}}
    _merged(first, {"a": {"b": "2"}})
    assert first == {"a": {"b": "1"}}


def test_an_empty_section_adds_nothing_and_a_section_replaces_a_value() -> None:
    assert _merged({"a": {"b": "1"}}, {"a": None}) == {"a": {"b": "1"}}
    assert _merged({"a": "1"}, {"a": {"b": "1"}}) == {"a": {"b": "1"}}
    assert _merged({"a": {"b": "1"}}, {"a": "1"}) == {"a": "1"}


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ({"password": "a"}, {"password_file": "b"}, {"password_file": "b"}),
        ({"password_env": "a", "password_file": "c"}, {"password": "b"}, {"password": "b"}),
        ({"host": "a"}, {"hosts": ["b"]}, {"hosts": ["b"]}),
        ({"host": "a"}, {"hosts": None}, {"host": "a", "hosts": None}),
    ],
)
def test_a_later_choice_replaces_the_earlier(
    old: dict[str, Value], new: dict[str, Value], result: dict[str, Value]
) -> None:
    assert _merged(old, new) == result


def test_places_are_the_later_ones_or_those_of_the_section_around() -> None:
    a, b = Place("a", 1), Place("b", 2)
    document = merged(
        [
            Document(places={("s",): a, ("s", "x"): a}, warnings=["one"]),
            Document(places={("s", "x"): b}, warnings=["two"]),
        ]
    )
    assert document.place(("s", "x")) == b
    assert document.place(("s", "y", "z")) == a
    assert document.place(("t",)) is None
    assert document.warnings == ["one", "two"]


def test_every_scalar_becomes_text() -> None:
    given = {"a": True, "b": [1, 2.5, None], 3: "x", "d": dt.date(2026, 1, 2)}
    assert text(given) == {"a": "true", "b": ["1", "2.5", None], "3": "x", "d": "2026-01-02"}


def test_relative_paths_belong_to_their_file() -> None:
    values: dict[str, Value] = {
        "services": {
            "a": {
                "tls": {"ca_file": "ca.pem", "key_file": "/k.pem"},
                "password_file": None,
                "options": {"key_file": "k"},
                "host": "h",
            }
        }
    }
    service = {
        "tls": {"ca_file": "/etc/gw/ca.pem", "key_file": "/k.pem"},
        "password_file": None,
        "options": {"key_file": "k"},
        "host": "h",
    }
    assert anchored(values, Path("/etc/gw")) == {"services": {"a": service}}
