"""The query, read strictly."""

from __future__ import annotations

import pytest

from app.api import query
from app.domain.errors import InvalidParameter


def test_names_and_values_are_decoded_once() -> None:
    assert query.parse(b"a=1%2B1&b=x+y&&c", ("a", "b", "c")) == {"a": "1+1", "b": "x y", "c": ""}
    assert query.parse(b"", ()) == {}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"tiemout=5", "known are confirm, timeout"),
        (b"timeout=1&timeout=2", "more than once"),
        (b"timeout=%", "hexadecimal"),
        (b"timeout=%ff", "UTF-8"),
        (b"%ff=1", "UTF-8"),
        (b"Confirm=none", "not known"),
    ],
)
def test_what_is_refused_is_said(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        query.parse(raw, ("confirm", "timeout"))


def test_one_parameter_may_be_given_more_than_once() -> None:
    assert query.parse_list(b"a=1&b=2&a=3&a=1", ("b",), "a") == ({"b": "2"}, ["1", "3", "1"])
    assert query.parse_list(b"", ("b",), "a") == ({}, [])
    for raw, says in ((b"b=1&b=2&a=3", "more than once"), (b"c=1", "known are a, b")):
        with pytest.raises(InvalidParameter, match=says):
            query.parse_list(raw, ("b",), "a")


def test_a_choice_is_one_of_its_words() -> None:
    options = {"receipt": True, "none": False}
    assert query.choice({}, "confirm", options, True) is True
    assert query.choice({"confirm": "none"}, "confirm", options, True) is False
    with pytest.raises(InvalidParameter, match="one of receipt, none") as caught:
        query.choice({"confirm": "NONE"}, "confirm", options, True)
    assert caught.value.errors[0].where == "confirm"


@pytest.mark.parametrize(
    ("text", "number"),
    [(None, 5.0), ("1", 1.0), ("0.5", 0.5), (".5", 0.5), ("2.", 2.0), ("1e1", 10.0), ("61", 60.0), ("1e999", 60.0)],
)
def test_seconds_are_capped_silently(text: str | None, number: float) -> None:
    values = {} if text is None else {"timeout": text}
    assert query.seconds(values, "timeout", default=5, longest=60) == number


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "1_0", "5s", "0x5", "٣"])
def test_seconds_are_a_positive_number(text: str) -> None:
    with pytest.raises(InvalidParameter, match="above 0"):
        query.seconds({"timeout": text}, "timeout", default=5, longest=60)


def test_the_default_is_capped_too() -> None:
    assert query.seconds({}, "timeout", default=5, longest=2) == 2


@pytest.mark.parametrize(("text", "found"), [(None, 3), ("0", 0), ("5", 5), ("2.5", 2.5), (".5", 0.5)])
def test_a_number_has_a_range(text: str | None, found: float) -> None:
    values = {} if text is None else {"wait": text}
    assert query.number(values, "wait", default=3, low=0, high=5) == found


@pytest.mark.parametrize("text", ["-0.1", "5.1", "nan", "inf", "1e999", "", "x"])
def test_what_is_no_number_of_the_range(text: str) -> None:
    with pytest.raises(InvalidParameter, match="a number from 0 to 5"):
        query.number({"wait": text}, "wait", default=3, low=0, high=5)


def test_a_whole_number_has_a_range() -> None:
    assert query.whole({}, "max", default=1, low=1, high=9) == 1
    assert query.whole({"max": "9"}, "max", default=1, low=1, high=9) == 9
    for text in ("0", "10", "1.0", "+1", "\u0663", "9" * 5000, ""):
        with pytest.raises(InvalidParameter, match="a whole number from 1 to 9"):
            query.whole({"max": text}, "max", default=1, low=1, high=9)
