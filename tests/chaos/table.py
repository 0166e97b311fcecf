"""Figures for a person: one table for each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def text(figures: Mapping[str, Any]) -> str:
    """All parts, each under its name; empty ones are left out."""
    return "\n".join(line for title, part in figures.items() if part for line in ("", title, *_part(part)))


def _part(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        width = max(map(len, part))
        yield from (f"  {name:<{width}}  {_cell(value)}" for name, value in part.items())
    elif isinstance(part[0], Mapping):
        yield from _rows(part)
    else:
        yield from (f"  {line}" for line in part)


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {row[0]:<{widths[0]}}  {'  '.join(others)}".rstrip() if first else ""


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(each)}" for name, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "-"
    return str(value)
