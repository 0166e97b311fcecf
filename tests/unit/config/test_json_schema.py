"""JSON Schema: what is refused when it is read, and what it says of a body."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from app.config.json_schema import MAX_ERRORS, MAX_MESSAGE, JsonSchema
from app.domain.errors import SchemaViolation

JOB = {
    "type": "object",
    "properties": {"JobID": {"type": "integer"}, "sites": {"type": "array", "items": {"$ref": "#/$defs/site"}}},
    "required": ["JobID"],
    "additionalProperties": False,
    "$defs": {"site": {"type": "string", "maxLength": 5}},
}


def places(schema: Any, value: Any) -> list[str]:
    """Where a value does not fit."""
    try:
        JsonSchema(json.dumps(schema)).check(value)
    except SchemaViolation as violation:
        return [error.where for error in violation.errors]
    return []


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"JobID": 1, "sites": ["CERN"]}, []),
        ({"JobID": "1"}, ["#/JobID"]),
        ({}, ["#"]),
        ({"JobID": 1, "x": 2}, ["#"]),
        ({"JobID": 1, "sites": ["CERN", 5, "IN2P3-CC"]}, ["#/sites/1", "#/sites/2"]),
        ([], ["#"]),
        (None, ["#"]),
    ],
)
def test_every_place_that_does_not_fit_is_named(value: Any, where: list[str]) -> None:
    assert places(JOB, value) == where


def test_a_place_is_a_json_pointer() -> None:
    assert places({"properties": {"a/b~c": {"type": "string"}}}, {"a/b~c": 1}) == ["#/a~1b~0c"]


def test_what_is_said_is_short_and_repeats_no_value() -> None:
    schema = JsonSchema(json.dumps({"items": {"enum": ["x" * 1000]}}))
    with pytest.raises(SchemaViolation) as caught:
        schema.check(["secret"] * 100)
    assert len(caught.value.errors) == MAX_ERRORS
    assert all(len(error.message) <= MAX_MESSAGE and "secret" not in error.message for error in caught.value.errors)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"type": "nothing"}',
        '{"pattern": "("}',
        '{"$ref": "#/$defs/none"}',
        '{"$ref": "http://127.0.0.1:1/schema.json"}',
        '{"$ref": "file:///etc/hostname"}',
        '{"$ref": "other.json"}',
    ],
)
def test_what_is_no_schema_or_lies_elsewhere_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"not valid JSON|not a JSON Schema"):
        JsonSchema(text)


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
def test_published_drafts_need_no_network(draft: str) -> None:
    assert places({"$schema": draft, "type": "object"}, 1) == ["#"]


def test_a_pattern_that_backtracks_holds_nobody_up() -> None:
    schema = JsonSchema(json.dumps({"type": "string", "pattern": "^(?=a)(a+)+$"}))
    begun = time.monotonic()
    with pytest.raises(SchemaViolation):
        schema.check("a" * 50 + "!")
    assert time.monotonic() - begun < 1


def test_half_a_surrogate_fits_no_schema() -> None:
    assert places(True, "\ud800") in ([], ["#"])
    assert places({"type": "string", "maxLength": 5}, "\ud800") in ([], ["#"])


def test_another_text_is_another_schema() -> None:
    assert JsonSchema("{}") == JsonSchema("{}")
    assert hash(JsonSchema("{}")) == hash(JsonSchema("{}"))
    assert JsonSchema("{}") != JsonSchema("true")
    assert JsonSchema("{}") != "{}"
