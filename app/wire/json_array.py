"""A JSON array of objects, read one object after the other: only the present one is in memory as values.

What a member holds is also there as it was written: numbers keep their digits, members their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.domain.errors import InvalidJson, MalformedRequest
from app.wire.payload import check_json

_SPACE = re.compile(r"[ \t\n\r]*")
#: Digits of a whole number that is read as one; with more it is no number anybody here counts with.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Member:
    """A value, and its text in the array."""

    value: Any
    text: str


Element = dict[str, Member] | MalformedRequest


def elements(body: bytes) -> Iterator[Element]:
    """The objects of the array; for what is no object, or names a member twice, an error in its place.

    Raises InvalidJson before the first element where the body is not JSON as a whole, MalformedRequest where it is no
    array.
    """
    check_json(body)
    reader = _Reader(body.decode())
    if not reader.takes("["):
        raise MalformedRequest("the body is a JSON array of objects")
    return _elements(reader)


def _elements(reader: _Reader) -> Iterator[Element]:
    if reader.takes("]"):
        return
    while True:
        yield reader.element()
        if not reader.takes(","):
            return


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Reader:
    """A place in a text that is known to be JSON."""

    _decoder = json.JSONDecoder(parse_int=_whole, parse_constant=_no_constant)

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        if found is not None:
            self._at = found.end()

    def takes(self, token: str) -> bool:
        """Go over the next character if it is this one, and over the white space before it."""
        self._skip_space()
        if not self._text.startswith(token, self._at):
            return False
        self._at += 1
        return True

    def element(self) -> Element:
        """Go over the next element of the array."""
        if self.takes("{"):
            return self._object()
        self._value()
        return MalformedRequest("a message is a JSON object")

    def _object(self) -> Element:
        members: dict[str, Member] = {}
        twice: str | None = None
        while not self.takes("}"):
            name = self._value().value
            self.takes(":")
            if name in members:
                twice = name
            members[name] = self._value()
            self.takes(",")
        if twice is not None:
            return MalformedRequest(f"the member {twice[:64]!r} is given more than once")
        return members

    def _value(self) -> Member:
        self._skip_space()
        start = self._at
        try:
            value, self._at = self._decoder.raw_decode(self._text, start)
        except (ValueError, RecursionError) as error:
            raise InvalidJson(f"the body is not valid JSON: {error}") from None
        return Member(value, self._text[start : self._at])
