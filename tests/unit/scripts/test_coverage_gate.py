"""The gate on coverage: lines and branches count apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.coverage_gate import main


def totals(lines: int, branches: int) -> dict[str, dict[str, int]]:
    return {
        "totals": {
            "covered_lines": lines,
            "num_statements": 100,
            "covered_branches": branches,
            "num_branches": 100 if branches else 0,
        }
    }


@pytest.mark.parametrize(
    ("lines", "branches", "code"), [(95, 95, 0), (100, 94, 1), (94, 100, 1), (95, 0, 0), (0, 0, 1)]
)
def test_both_count(tmp_path: Path, lines: int, branches: int, code: int) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(totals(lines, branches)))
    assert main(report, 95) == code
