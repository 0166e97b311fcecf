"""TOML to a document. The lines of its keys are looked up afterwards, because tomllib does not tell
them."""

from __future__ import annotations

import re
import tomllib

from app.config.document import Document, Keys, text
from app.config.errors import ConfigError, Place, Problem

_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER = re.compile(r"\s*(\[[^\[\]]+\])\s*(?:#.*)?")
_OPTION = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'|\s*\.\s*)+?)\s*=")


def parse_toml(source: str, content: str) -> Document:
    """Parse TOML 1.0; raises ConfigError with the line."""
    try:
        # Numbers with a fraction keep their digits; they may turn out to be text.
        parsed = tomllib.loads(content, parse_float=str)
    except tomllib.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        place = Place(source, int(found[1]) if found else None)
        raise ConfigError([Problem(f"not TOML: {_LINE.sub('', str(error)).strip()}", place=place)]) from None
    values = text(parsed)
    places = {(): Place(source)} | _places(source, content)
    return Document(values if isinstance(values, dict) else {}, places)


def _places(source: str, content: str) -> dict[Keys, Place]:
    """Key paths with their lines; a line inside a multi-line string may be taken for one, which does no
    harm."""
    places: dict[Keys, Place] = {}
    table: Keys = ()
    for number, line in enumerate(content.splitlines(), 1):
        header, option = _HEADER.fullmatch(line), _OPTION.match(line)
        if header:
            table = _keys(header[1])
        found = table if header else (*table, *_keys(f"{option[1]} = 0")) if option else ()
        if found:
            places.setdefault(found, Place(source, number))
    return places


def _keys(line: str) -> Keys:
    """The keys of a single table header or option line, outermost first."""
    try:
        node: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(node, dict) and node:
        keys.append(next(iter(node)))
        node = node[keys[-1]]
    return tuple(keys)
