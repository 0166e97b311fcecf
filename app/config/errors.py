"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was given: a file, a variable or the command line, and the line (from 1) where
    known."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where, which option (dotted path, empty for a whole file), and why. Never a
    secret."""

    reason: str
    option: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        parts = (str(self.place) if self.place else "", self.option, self.reason)
        return ": ".join(part for part in parts if part)


class ConfigError(Exception):
    """The configuration cannot be used; `str()` is one problem a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
