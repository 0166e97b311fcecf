"""What must hold for the parser of DIRAC's CFG syntax on any file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import diraccfg

from app.config.dirac_cfg import CfgSection, parse_cfg
from app.config.errors import ConfigError

Tree = dict[str, object]

#: Everything the parser says of a file; a section's name is all it may repeat of it.
_REASONS = re.compile(
    r"the section is never closed"
    r"|an option without a name"
    r"|`\{` without a section name before it"
    r"|`\}` closes nothing"
    r"|neither `option = value` nor a section name with `\{` after it"
    r"|an option stands on a line of its own"
    r"|section [^={}]+ appears twice, first on line [0-9]+"
)
# Where our reading and DIRAC's are meant to be the same: see the differences that app.config.dirac_cfg names.
# A name with a slash is a path there.
_NAME = r"[^={}#+/]+"
_SHARED_LINE = re.compile(rf"\s*(?:#.*|(?P<option>{_NAME})=.*|{_NAME}|(?:{_NAME})?\{{\s*\}}?|\}}|)\s*")


def check(data: bytes) -> None:
    """Raises AssertionError, or whatever else than a ConfigError the parser raises."""
    content = as_text(data)
    if content is None:
        return
    tree = read(content)
    assert read(content.replace("\n", "\r\n")) == tree
    if tree is not None:
        _check_round_trip(tree)
        _check_other_parser(content, tree)


def as_text(data: bytes) -> str | None:
    """What the parser gets of a file with these bytes: line ends are LF; None where it is not read at all."""
    try:
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except UnicodeDecodeError:
        return None


def read(content: str) -> Tree | None:
    """The tree; None where the file is refused, which must be told with a line of it and without any value."""
    try:
        return plain(parse_cfg("x.cfg", content))
    except ConfigError as error:
        (problem,) = error.problems
        assert _REASONS.fullmatch(problem.reason), problem.reason
        assert problem.place is not None
        assert problem.place.line is not None
        assert 1 <= problem.place.line <= content.count("\n") + 1
        return None


def plain(section: CfgSection) -> Tree:
    """A section as maps and text."""
    options: Tree = {name: option.value for name, option in section.options.items()}
    return options | {name: plain(inner) for name, inner in section.sections.items()}


def written(tree: Tree, indent: str = "") -> Iterator[str]:
    """The lines of a file with this content."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (f"{indent}{name}", f"{indent}{{", *written(value, indent + "  "), f"{indent}}}")
        else:
            yield f"{indent}{name} = {value}"


def _check_round_trip(tree: Tree) -> None:
    # A section that is opened behind a brace may be called what alone on its line is a comment.
    if not any(name.startswith("#") for name in _sections(tree)):
        assert read("\n".join(written(tree))) == _without_ends(tree)


def _without_ends(tree: Tree) -> Tree:
    """White space ends a value only where nothing was appended to it."""
    return {
        name: _without_ends(value) if isinstance(value, dict) else str(value).rstrip() for name, value in tree.items()
    }


def _sections(tree: Tree) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (name, *_sections(value))


def _check_other_parser(content: str, tree: Tree) -> None:
    """DIRAC's own parser reads the same, where it is meant to."""
    if not all(map(_SHARED_LINE.fullmatch, content.split("\n"))):
        return
    if _names_twice(parse_cfg("x.cfg", content)):
        return
    try:
        theirs = diraccfg.CFG().loadFromBuffer(content).getAsDict("/")
    except (ValueError, KeyError):
        return
    assert theirs == tree


def _names_twice(section: CfgSection) -> bool:
    """Whether a section holds an option and a section of the same name: DIRAC keeps the later one only."""
    inner = section.sections
    return bool(section.options.keys() & inner.keys()) or any(map(_names_twice, inner.values()))
