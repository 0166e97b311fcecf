"""Validation errors in the operator's words: place, option, reason; no value that could be a secret."""

from __future__ import annotations

import re
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.config.document import Document
from app.config.errors import Problem
from app.config.schema import option_names, section_at
from app.config.settings import Settings

_SENTENCES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "secret_type": "must be text",
    "path_type": "must be the path of a file",
    "model_type": "must be a section, not a single value",
    "dict_type": "must be a section, not a single value",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_long": "has too many entries",
    "missing": "is missing",
}
# Options of these types hold a number or a word from a list, so their value is no secret, unless somebody wrote one
# beside its place: what could be one is not shown.
_SHOWN = frozenset({"bool_parsing", "int_parsing", "int_from_float", "float_parsing", "literal_error"})
_WORD = re.compile(r"[A-Za-z]{1,12}|[+-]?[0-9][0-9.,_]{0,9}[A-Za-z%]{0,3}")


def explain(error: ValidationError, document: Document) -> list[Problem]:
    """One problem per validation error, in the order of the settings."""
    details = error.errors(include_url=False)
    return [_problem(detail, document) for detail in details]


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    keys = [key for key in detail["loc"] if key != "[key]"]
    named = tuple(str(key) for key in keys)
    reason = _unknown(keys) if detail["type"] == "extra_forbidden" else _reason(detail)
    return Problem(reason, ".".join(named), document.place(named))


def _unknown(keys: list[int | str]) -> str:
    section = section_at(Settings, keys[:-1])
    known = option_names(section) if section else {}
    near = get_close_matches(str(keys[-1]), known, 1, 0.6)
    return f"unknown option; did you mean {near[0]}?" if near else f"unknown option; known are {', '.join(known)}"


def _reason(detail: ErrorDetails) -> str:
    sentence = _SENTENCES.get(detail["type"])
    if detail["type"] == "literal_error":
        sentence = f"must be {detail['ctx']['expected']}"
    if sentence is None:
        sentence = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
    value = detail["input"]
    shown = detail["type"] in _SHOWN and isinstance(value, str) and _WORD.fullmatch(value)
    return f"{sentence}, not {value!r}" if shown else sentence
