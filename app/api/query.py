"""The query string, read strictly: what is misspelt is refused, not ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from app.domain.errors import FieldError, InvalidParameter

T = TypeVar("T")

_BROKEN_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: RFC 3339, section 5.6; T and Z in either case.
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)


def bad_parameter(name: str, rule: str) -> InvalidParameter:
    """The 400 for a query parameter: names it and says what it may be."""
    return InvalidParameter(f"parameter {name!r}: {rule}", errors=[FieldError(name, rule)])


def parse(query: bytes, known: Iterable[str]) -> dict[str, str]:
    """Names and values; raises InvalidParameter for unknown or repeated names and what is not UTF-8."""
    return _once(_pairs(query, tuple(known)))


def parse_list(query: bytes, known: Iterable[str], name: str) -> tuple[dict[str, str], list[str]]:
    """As `parse`, and the values of one more parameter that may be repeated, in their order."""
    pairs = list(_pairs(query, (name, *known)))
    return _once(pair for pair in pairs if pair[0] != name), [value for key, value in pairs if key == name]


def _once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise bad_parameter(name, "is given more than once")
        values[name] = value
    return values


def _pairs(query: bytes, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for pair in query.split(b"&"):
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition(b"=")
        name = _decode(raw_name)
        if name not in known:
            raise bad_parameter(name[:64], f"is not known here; known are {', '.join(known)}")
        yield name, _decode(raw_value)


def _decode(raw: bytes) -> str:
    if _BROKEN_PERCENT.search(raw):
        raise InvalidParameter("the query has a `%` without two hexadecimal digits; itself it is written %25")
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise InvalidParameter("the query is not valid UTF-8 after decoding") from None


def instant(name: str, text: str, rule: str) -> float:
    """A time of RFC 3339 as Unix time in seconds; raises InvalidParameter with the rule."""
    if not _INSTANT.fullmatch(text):
        raise bad_parameter(name, rule)
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise bad_parameter(name, rule) from None


def choice(values: Mapping[str, str], name: str, options: Mapping[str, T], default: T) -> T:
    """One of a few words; raises InvalidParameter naming them."""
    text = values.get(name)
    if text is None:
        return default
    if text not in options:
        raise bad_parameter(name, f"is one of {', '.join(options)}")
    return options[text]


def seconds(values: Mapping[str, str], name: str, *, default: float, longest: float) -> float:
    """A positive number of seconds, silently capped at `longest`; else raises InvalidParameter."""
    text = values.get(name)
    if text is None:
        return min(default, longest)
    number = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not number > 0:  # what is too large to be a number is capped like what is just too large
        raise bad_parameter(name, "is a number of seconds above 0")
    return min(number, longest)


def number(values: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    """A number from `low` to `high`; raises InvalidParameter naming the range."""
    text = values.get(name)
    if text is None:
        return min(default, high)
    found = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not low <= found <= high:
        raise bad_parameter(name, f"is a number from {low:g} to {high:g}")
    return found


def whole(values: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`; raises InvalidParameter naming the range."""
    text = values.get(name)
    if text is None:
        return default
    # No more digits than a number in any range here has: int() takes quadratic time for long ones.
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or not low <= int(text) <= high:
        raise bad_parameter(name, f"is a whole number from {low} to {high}")
    return int(text)
