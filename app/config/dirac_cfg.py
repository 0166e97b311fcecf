"""DIRAC's CFG syntax: nested sections in braces, one `option = value` a line.

    # a comment: a line whose first character is a hash
    Section
    {
      Option = value up to the end of the line
      Option += more        # appended after a comma (this would be part of the value)
      Inner { }
    }

Written from the documented syntax and the behaviour of DIRAC's own parser, with three differences: a stray
line is an error instead of a part of the next section's name, `+=` on an unset option sets it, and what
follows `{` or `}` on a line is read too. A hash after a value belongs to the value here; `dirac_services`
decides what it means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.config.errors import ConfigError, Place, Problem

_OPTION = re.compile(r"(?P<name>[^={}]*?)\s*(?P<operator>\+?=)\s*(?P<value>.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_PIECE = re.compile(r"[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class CfgOption:
    """An option's text and where it stands."""

    value: str = field(repr=False)
    place: Place


@dataclass(slots=True)
class CfgSection:
    """A section's options and sections by name."""

    place: Place
    options: dict[str, CfgOption] = field(default_factory=dict)
    sections: dict[str, CfgSection] = field(default_factory=dict)

    def find(self, path: str) -> CfgSection | None:
        """The section at a path such as `Resources/MQServices`; None where a part is missing."""
        node: CfgSection | None = self
        for name in path.strip("/").split("/"):
            node = node.sections.get(name) if node else None
        return node

    def merge(self, later: CfgSection) -> None:
        """Take over what `later` has; its options win, sections merge."""
        self.options |= later.options
        for name, section in later.sections.items():
            if name in self.sections:
                self.sections[name].merge(section)
            else:
                self.sections[name] = section


def parse_cfg(source: str, content: str) -> CfgSection:
    """Parse a file in CFG syntax; raises ConfigError naming the line and never its text, which may be a
    secret."""
    parser = _Parser(source)
    # Only LF ends a line, as for DIRAC: str.splitlines knows eight more, which may stand in a value.
    for number, line in enumerate(content.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            parser.line(number, stripped)
    return parser.end()


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._line = 0
        self._open = [CfgSection(Place(source))]
        self._name = ""  # a section's name that waits for its brace
        self._name_line = 0

    def line(self, number: int, stripped: str) -> None:
        self._line = number
        option = _OPTION.fullmatch(stripped)
        if option:
            self._option(option["name"], option["operator"], option["value"])
            return
        for piece in _pieces(stripped):
            self._piece(piece)

    def end(self) -> CfgSection:
        self._no_name_waits()
        if len(self._open) > 1:
            self._fail("the section is never closed", self._open[-1].place.line)
        return self._open[0]

    def _option(self, name: str, operator: str, value: str) -> None:
        self._no_name_waits()
        if not name:
            self._fail("an option without a name")
        options = self._open[-1].options
        if operator == "+=" and name in options and options[name].value:
            value = f"{options[name].value}, {value}"
        options[name] = CfgOption(value, Place(self._source, self._line))

    def _piece(self, piece: str) -> None:
        if piece == "{":
            self._enter()
        elif piece == "}":
            self._leave()
        elif "=" in piece:  # else a value could pass for a section's name, which errors repeat
            self._fail("an option stands on a line of its own")
        else:
            self._no_name_waits()
            self._name, self._name_line = piece, self._line

    def _enter(self) -> None:
        if not self._name:
            self._fail("`{` without a section name before it")
        siblings = self._open[-1].sections
        if self._name in siblings:
            self._fail(f"section {self._name} appears twice, first on line {siblings[self._name].place.line}")
        section = CfgSection(Place(self._source, self._name_line))
        siblings[self._name] = section
        self._open.append(section)
        self._name = ""

    def _leave(self) -> None:
        self._no_name_waits()
        if len(self._open) == 1:
            self._fail("`}` closes nothing")
        self._open.pop()

    def _no_name_waits(self) -> None:
        if self._name:
            self._fail("neither `option = value` nor a section name with `{` after it", self._name_line)

    def _fail(self, reason: str, line: int | None = None) -> None:
        raise ConfigError([Problem(reason, place=Place(self._source, line or self._line))])


def _pieces(stripped: str) -> Iterator[str]:
    for piece in _PIECE.findall(_COMMENT.sub("", stripped)):
        if piece.strip():
            yield piece.strip()
