"""The rules of the house as a program: which module may import which, and how large things may be.

Run it for a report (exit code 1 where a rule is broken), or call `problems`. Reads the source, imports nothing of it.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

#: A module imports its own package or packages on lower floors.
FLOORS = {
    "domain": 0,
    "config": 1,
    "wire": 1,
    "telemetry": 2,
    "connectors": 3,
    "auth": 3,
    "client": 3,
    "http1": 3,
    "gateway": 4,
    "api": 5,
    "web": 5,
    "main": 6,
    "banner": 6,
    "server": 7,
    "token_commands": 7,
    "access_commands": 7,
    "cli": 8,
    "__main__": 9,
}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MEDIAN_FUNCTION_LINES = 8
P90_FUNCTION_LINES = 25


@dataclass(frozen=True)
class Module:
    """A source file, its dotted name and its syntax tree."""

    name: str
    path: Path

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def lines(self) -> int:
        return len(self.source.splitlines())

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.name}:{node.lineno} ({self.name})"


def modules(root: Path) -> dict[str, Module]:
    """Every module of the package whose folder is `root`, by dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def problems(root: Path) -> list[str]:
    """Every broken rule of the package at `root` as one line; empty where there is none."""
    known = modules(root)
    found = [line for module in known.values() for line in (*_floors(module, known), *_hidden(module))]
    found += _circles(known)
    found += _figures(list(known.values()))
    return found


def report(root: Path) -> str:
    """The figures in one line."""
    lengths = _lengths(list(modules(root).values())) or [0]
    return f"{len(lengths)} functions, median {statistics.median(lengths):g} lines, 90th percentile {_p90(lengths):g}"


def imports(module: Module, known: dict[str, Module]) -> Iterator[tuple[ast.stmt, str]]:
    """The modules of the same package that a module imports, with the statement."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _imported(module, node, known):
                yield node, name


def _imported(module: Module, node: ast.Import | ast.ImportFrom, known: dict[str, Module]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
        return
    base = _base(module, node)
    for alias in node.names:
        # `from a.b import c`: c is a module or a name in the module a.b.
        name = f"{base}.{alias.name}"
        if name in known:
            yield name
        elif base in known:
            yield base


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    drop = node.level - (module.path.name == "__init__.py")
    return ".".join([*package[: len(package) - drop], *([node.module] if node.module else [])])


def _package(name: str) -> str:
    """`app.wire.sse` belongs to `wire`; `app` itself to no package."""
    return name.partition(".")[2].partition(".")[0]


def _floors(module: Module, known: dict[str, Module]) -> Iterator[str]:
    here = _package(module.name)
    if here and here not in FLOORS:
        yield f"{module.name}: the package {here!r} has no floor"
        return
    for node, name in imports(module, known):
        there = _package(name)
        if there not in {here, ""} and FLOORS.get(there, 99) >= FLOORS.get(here, -1):
            yield f"{module.at(node)}: imports {name}, which is not on a lower floor"


def _hidden(module: Module) -> Iterator[str]:
    """Imports that dodge a circle: inside a function or under TYPE_CHECKING."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = (found for found in ast.walk(node) if isinstance(found, ast.Import | ast.ImportFrom))
            yield from (f"{module.at(found)}: import inside the function {node.name}" for found in inner)
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
        if name == "TYPE_CHECKING" and isinstance(node, ast.expr):
            yield f"{module.at(node)}: TYPE_CHECKING"


def _circles(known: dict[str, Module]) -> list[str]:
    graph = {module.name: {name for _, name in imports(module, known)} - {module.name} for module in known.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"import circle: {' -> '.join(error.args[1])}"]
    return []


def _figures(found: list[Module]) -> Iterator[str]:
    for module in found:
        if module.lines > MAX_FILE_LINES:
            yield f"{module.name}: {module.lines} lines, more than {MAX_FILE_LINES}"
        for node in _functions(module):
            if _length(node) > MAX_FUNCTION_LINES:
                yield f"{module.at(node)}: {node.name} has {_length(node)} lines, more than {MAX_FUNCTION_LINES}"
    lengths = _lengths(found)
    if lengths and statistics.median(lengths) > MEDIAN_FUNCTION_LINES:
        yield f"the median function has {statistics.median(lengths):g} lines, more than {MEDIAN_FUNCTION_LINES}"
    if lengths and _p90(lengths) > P90_FUNCTION_LINES:
        yield f"the 90th percentile of functions is {_p90(lengths):g} lines, more than {P90_FUNCTION_LINES}"


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _lengths(found: list[Module]) -> list[int]:
    return sorted(_length(node) for module in found for node in _functions(module))


def _p90(lengths: list[int]) -> int:
    return lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)]


def main(root: Path) -> int:
    broken = problems(root)
    print(*broken, f"house: {report(root)}, {len(broken)} problems", sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent / "app"))
