"""An array of objects, one at a time, with the text of every member as it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidJson, MalformedRequest
from app.wire.json_array import Member, elements

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def _members(body: bytes) -> list[dict[str, Member]]:
    found = list(elements(body))
    assert all(isinstance(element, dict) for element in found)
    return [element for element in found if isinstance(element, dict)]


def test_a_member_keeps_its_text() -> None:
    (element,) = _members(b' [ {"body" : {"n": 1.0,  "e":1e400}, "priority":7 } ] ')
    assert element["body"].text == '{"n": 1.0,  "e":1e400}'
    assert element["priority"] == Member(7, "7")


@pytest.mark.parametrize("body", [b"[]", b"\n[ \t]\r\n"])
def test_an_empty_array_has_no_elements(body: bytes) -> None:
    assert list(elements(body)) == []


@pytest.mark.parametrize("body", [b"", b"[", b"[{}", b"[{},]", b'[{"a":NaN}]', b"[\xff]", b"[] []", b'[{"a"}]'])
def test_what_is_not_json_as_a_whole_is_refused_before_the_first_element(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        elements(body)


@pytest.mark.parametrize("body", [b"{}", b"1", b'"["', b"null"])
def test_what_is_no_array_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="array"):
        elements(body)


def test_what_is_no_object_or_says_a_thing_twice_spoils_only_itself() -> None:
    found = list(elements(b'[{"a":1}, 5, [{}], "x", {"a":1,"b":2,"a":3}, {}]'))
    assert [type(element) for element in found] == [dict, *[MalformedRequest] * 4, dict]
    assert "'a'" in str(found[4])


def test_a_long_number_keeps_its_digits() -> None:
    digits = "9" * 4000
    (element,) = _members(f'[{{"body":{digits}}}]'.encode())
    assert element["body"].text == digits


@given(st.lists(st.dictionaries(st.text(), _VALUES, max_size=4), max_size=4), st.sampled_from([None, 1]))
def test_any_array_of_objects_is_read_as_json_reads_it(value: list[dict[str, Any]], indent: int | None) -> None:
    body = json.dumps(value, indent=indent).encode()
    found = [{name: json.loads(member.text) for name, member in element.items()} for element in _members(body)]
    assert found == value
