"""The settings classes looked at from outside: which options does a section have?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args, get_origin

from pydantic.fields import FieldInfo

from app.config.section import Section


def option_names(section: type[Section]) -> dict[str, FieldInfo]:
    """The options by the name they have in a file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def sections_in(annotation: object) -> Iterator[type[Section]]:
    """Every section class inside an annotation such as `dict[str, TopicSettings]` or `TlsSettings |
    None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def section_at(root: type[Section], keys: Sequence[str | int]) -> type[Section] | None:
    """The section class that a key path leads to; None where it leads elsewhere."""
    current: type[Section] | None = root
    rest = list(keys)
    while rest and current is not None:
        field = option_names(current).get(str(rest.pop(0)))
        if field is None:
            return None
        if get_origin(field.annotation) is dict and rest:
            rest.pop(0)  # the name somebody gave: a service, a destination
        current = next(sections_in(field.annotation), None)
    return current
