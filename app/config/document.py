"""A configuration source as a tree of text, with the place each value comes from; sources merge into
one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from app.config.errors import Place

#: Every scalar is text and cast by its setting, so that `password: 0123` keeps its zero. None is "unset".
Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"
Keys: TypeAlias = tuple[str, ...]

# Giving one of a group in a later source replaces whichever an earlier one gave.
_EXCLUSIVE = (frozenset({"password", "password_file", "password_env"}), frozenset({"host", "hosts"}))
_PATH_OPTIONS = frozenset(
    [
        "ca_file",
        "ca_path",
        "cert_file",
        "key_file",
        "password_file",
        "schema",
        "tokens_file",
        "secret_file",
        "jwks_file",
        "state_file",
    ]
)
# What stands below these is not ours: headers for a broker, options of a foreign connector.
_FOREIGN = frozenset({"arguments", "options"})


@dataclass(slots=True)
class Document:
    """One source, or several merged. `places` has an entry per key path; `warnings` are sentences for a
    person."""

    values: dict[str, Value] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def place(self, keys: Keys) -> Place | None:
        """The place of the value, or of the nearest section around it."""
        for length in range(len(keys), -1, -1):
            found = self.places.get(keys[:length])
            if found:
                return found
        return None


def merged(documents: Iterable[Document]) -> Document:
    """The documents as one: maps merge, anything else of a later document replaces the earlier."""
    result = Document()
    for document in documents:
        result.values = _merge(result.values, document.values)
        result.places |= document.places
        result.warnings += document.warnings
    return result


def _merge(old: dict[str, Value], new: dict[str, Value]) -> dict[str, Value]:
    result = {key: value for key, value in old.items() if not _replaced(key, new)}
    for key, value in new.items():
        before = result.get(key)
        if isinstance(before, dict) and value is None:
            continue  # an empty section adds nothing
        both = isinstance(before, dict) and isinstance(value, dict)
        result[key] = _merge(before, value) if both else value  # type: ignore[arg-type]
    return result


def _replaced(key: str, new: Mapping[str, Value]) -> bool:
    return any(key in group and any(new.get(other) is not None for other in group) for group in _EXCLUSIVE)


def text(value: object) -> Value:
    """A parsed value as a tree of text, numbers and booleans as they are written in JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def anchored(values: dict[str, Value], folder: Path) -> dict[str, Value]:
    """The values with relative paths made relative to `folder`, the one of the file that names them."""
    result: dict[str, Value] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result[key] = value if key in _FOREIGN else anchored(value, folder)
        elif isinstance(value, str) and key in _PATH_OPTIONS:
            result[key] = str(folder / value)
        else:
            result[key] = value
    return result
