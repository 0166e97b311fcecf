"""docs/conformance.md and the numbers in the names of the tests say the same. Reads both, runs nothing of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs/conformance.md"
#: A row that says so needs no test.
MARKED = ("deviation", "not applicable")

_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)(?:\[([^\]]*)\])?`")


@dataclass(frozen=True)
class Table:
    """A section of the document, how its numbers stand in the names of tests, and the last number."""

    heading: str
    word: str
    last: int

    def numbers(self, name: str) -> set[int]:
        """The numbers that a test's name carries, e.g. 8 and 9 in `test_behaviour_08_09_restart`."""
        found = re.findall(rf"{self.word}_((?:\d\d(?!\d)_?)+)", name)
        return {int(number) for digits in found for number in re.findall(r"\d\d", digits)}


@dataclass(frozen=True)
class Row:
    """One numbered row: the tests it names as (file, function, parameter id), and whether it may do without."""

    number: int
    tests: tuple[tuple[str, str, str], ...]
    marked: bool


BEHAVIOURS = Table("Behaviours at brokers", "behaviour", 40)
EVENTS = Table("Server-sent events", "sse_case", 67)
TABLES = [pytest.param(table, id=table.word) for table in (BEHAVIOURS, EVENTS)]


@cache
def known() -> dict[tuple[str, str], set[str]]:
    """Every test as (file, function) with the literal ids of its parameters."""
    return {
        (str(path.relative_to(TESTS)), node.name): set(_ids(node))
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def _ids(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Texts in `ids=[…]` and `id=…` of its decorators."""
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.keyword) and node.arg in ("id", "ids"):
                yield from (
                    part.value
                    for part in ast.walk(node.value)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )


@cache
def rows_of(table: Table) -> tuple[Row, ...]:
    """The numbered rows under a heading."""
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {table.heading}\n")
    section = section.partition("\n## ")[0]
    rows = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            named = tuple((found[1], found[2], found[3] or "") for found in _NAMED.finditer(line))
            rows.append(Row(int(cells[0]), named, any(cell.startswith(MARKED) for cell in cells)))
    return tuple(rows)


def carried(table: Table, file: str, function: str) -> set[int]:
    """The numbers of a test, in its name and in the ids of its parameters."""
    return table.numbers(function).union(*map(table.numbers, known()[file, function]))


def expected(table: Table) -> bool:
    """Whether the table is there; the heading alone holds its place."""
    return table is BEHAVIOURS or bool(rows_of(table))


def test_it_sees_what_there_is() -> None:
    assert ("test_conformance.py", "test_it_sees_what_there_is") in known()
    assert f"\n## {EVENTS.heading}\n" in DOCUMENT.read_text(encoding="utf-8")
    assert BEHAVIOURS.numbers("test_behaviour_08_09_11_restart") == {8, 9, 11}
    assert BEHAVIOURS.numbers("test_behaviour_15_200_streams_sse_case_03") == {15}
    assert EVENTS.numbers("test_behaviour_15_sse_case_03_sse_case_04_05_x") == {3, 4, 5}
    assert EVENTS.numbers("test_behaviour_15") == set()


@pytest.mark.parametrize("table", TABLES)
def test_every_number_has_one_row(table: Table) -> None:
    if expected(table):
        assert [row.number for row in rows_of(table)] == list(range(1, table.last + 1))


@pytest.mark.parametrize("table", TABLES)
def test_every_number_has_a_test_or_says_why_not(table: Table) -> None:
    without = [row.number for row in rows_of(table) if not row.tests and not row.marked]
    assert without == []


@pytest.mark.parametrize("table", TABLES)
def test_every_test_that_is_named_exists_and_carries_the_number(table: Table) -> None:
    wrong = [
        (row.number, file, function, parameter)
        for row in rows_of(table)
        for file, function, parameter in row.tests
        if (file, function) not in known()
        or (parameter and parameter not in known()[file, function])
        or row.number not in carried(table, file, function)
    ]
    assert wrong == []


@pytest.mark.parametrize("table", TABLES)
def test_every_number_that_a_test_carries_is_in_the_table(table: Table) -> None:
    if not expected(table):
        return
    told = {(row.number, file, function) for row in rows_of(table) for file, function, _ in row.tests}
    untold = [
        (number, file, function)
        for file, function in known()
        if file != Path(__file__).name
        for number in sorted(carried(table, file, function))
        if (number, file, function) not in told
    ]
    assert untold == []
