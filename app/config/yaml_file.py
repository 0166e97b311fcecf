"""YAML to a document. Scalars stay text; duplicate keys are errors; every key knows its line."""

from __future__ import annotations

from pathlib import Path

import yaml

from app.config.document import Document, Keys, Value
from app.config.errors import ConfigError, Place, Problem

_NULL = "tag:yaml.org,2002:null"
# Aliases can make a small file an endless tree (YAML 1.2.2 section 7.1); no configuration needs more.
_MAX_DEPTH = 12
_MAX_NODES = 200_000


def parse_yaml(source: str, content: str) -> Document:
    """Parse one YAML document whose top is a map (or nothing); raises ConfigError with the line."""
    try:
        root = yaml.compose(content, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError([Problem(_harmless(error), place=Place(source, line))]) from None
    except yaml.YAMLError:
        raise ConfigError([Problem("contains a character that YAML does not allow", place=Place(source))]) from None
    walk = _Walk(source)
    if root is not None:
        value = walk.value(root, ())
        if isinstance(value, dict):
            walk.document.values = value
        elif value is not None:
            walk.problem(root, (), "the top of the file must be a section")
    if walk.problems:
        raise ConfigError(walk.problems)
    return walk.document


def _harmless(error: yaml.MarkedYAMLError) -> str:
    # PyYAML quotes the name of an unknown alias, which may be a password that begins with an asterisk.
    problem = error.problem or "not YAML"
    return "a value that begins with `*` needs quotes" if "alias" in problem else f"not YAML: {problem}"


class _Walk:
    """From PyYAML's nodes to text; collects the places and what is wrong."""

    def __init__(self, source: str) -> None:
        self.document = Document()
        self.problems: list[Problem] = []
        self._source = source
        self._nodes = 0

    def value(self, node: yaml.Node, keys: Keys) -> Value:
        self._nodes += 1
        if len(keys) > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ConfigError([Problem("too deep or too large", place=self._place(node))])
        if isinstance(node, yaml.MappingNode):
            return self._map(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*keys, str(index))) for index, item in enumerate(node.value)]
        return self._scalar(node, keys)

    def _scalar(self, node: yaml.Node, keys: Keys) -> Value:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self.problem(node, keys, "a value that begins with `!` needs quotes")
        return None if node.tag == _NULL else str(node.value)

    def _map(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Value]:
        result: dict[str, Value] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, keys, "a key must be text")
                continue
            path = (*keys, key.value)
            if key.value in result:
                self.problem(key, path, f"given twice, first on line {self.document.places[path].line}")
            self.document.places[path] = self._place(key)
            result[key.value] = self.value(item, path)
        return result

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._source, node.start_mark.line + 1)

    def problem(self, node: yaml.Node, keys: Keys, reason: str) -> None:
        self.problems.append(Problem(reason, ".".join(keys), self._place(node)))


def read_text(path: Path) -> str:
    """The file as UTF-8, without a byte order mark; raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", place=Place(str(path)))]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("is not UTF-8", place=Place(str(path)))]) from None
