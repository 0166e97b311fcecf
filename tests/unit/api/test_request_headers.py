"""Header fields: bytes, text, and no choosing between two."""

from __future__ import annotations

import pytest

from app.api.request_headers import RequestHeaders, as_text
from app.domain.errors import InvalidHeader

HEADERS = RequestHeaders([(b"a", b" 1\t"), (b"b", b"x"), (b"b", b"y"), (b"c", "é".encode()), (b"d", b"\xe9")])


def test_values_lose_the_space_around_them() -> None:
    assert HEADERS.get(b"a") == b"1"
    assert HEADERS.text(b"a") == "1"
    assert HEADERS.get(b"z") is None
    assert HEADERS.text(b"z") is None


def test_two_values_are_refused_where_one_counts() -> None:
    with pytest.raises(InvalidHeader, match="b: is given more than once") as caught:
        HEADERS.get(b"b")
    assert caught.value.errors[0].where == "b"
    assert HEADERS.first(b"b") == b"y"
    assert b"b" in HEADERS
    assert b"z" not in HEADERS


def test_text_is_utf8_and_never_latin1() -> None:
    assert HEADERS.text(b"c") == "é"
    with pytest.raises(InvalidHeader, match="UTF-8"):
        HEADERS.text(b"d")
    with pytest.raises(InvalidHeader):
        as_text(b"d", b"\xff")
