"""The JSON Schema that bodies for a destination must fit (json-schema.org)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from jsonschema_rs import ValidationError, validator_for

from app.domain.errors import FieldError, SchemaViolation

#: Violations (count) that are named, and characters of each.
MAX_ERRORS = 20
MAX_MESSAGE = 300


class JsonSchema:
    """Compiled once. Drafts 4 to 2020-12 by `$schema`, 2020-12 without; references stay within the text.

    Equal where the text is equal: another text in the same file is another configuration.
    """

    def __init__(self, text: str) -> None:
        """Raises ValueError with the fault."""
        self._text = text
        try:
            self._validator = validator_for(json.loads(text), offline=True, mask="it")
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON: {error}") from None
        except ValidationError as error:
            raise ValueError(f"not a JSON Schema: {_shortened(error.message)}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonSchema) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def check(self, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Raises SchemaViolation, which names at most MAX_ERRORS places and repeats no value."""
        try:
            errors = list(islice(self._violations(value), MAX_ERRORS))
        except ValueError:  # a lone surrogate, which RFC 8259 allows and no schema can look at
            errors = [FieldError("#", "holds text that is not Unicode")]
        if errors:
            raise SchemaViolation("the body does not fit the destination's JSON Schema", errors=errors)

    def _violations(self, value: Any) -> Iterator[FieldError]:  # noqa: ANN401
        for error in self._validator.iter_errors(value):
            yield FieldError(_pointer(error.instance_path), _shortened(error.message))


def _pointer(path: list[str | int]) -> str:
    """A place in the body as a JSON Pointer in a URI fragment's form (RFC 6901 section 6)."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)[:MAX_MESSAGE]


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
