"""Hold the measured coverage to a minimum: coverage_gate.py REPORT.json MINIMUM

Reads coverage's JSON report and looks at lines and at branches, each on its own; exit code 1 where one is below.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def shares(totals: dict[str, float]) -> dict[str, float]:
    """Percentages covered of `lines` and `branches`; 100 where there is nothing to cover."""
    return {
        "lines": _percent(totals["covered_lines"], totals["num_statements"]),
        "branches": _percent(totals["covered_branches"], totals["num_branches"]),
    }


def _percent(covered: float, total: float) -> float:
    return 100.0 * covered / total if total else 100.0


def main(report: Path, minimum: float) -> int:
    found = shares(json.loads(report.read_text())["totals"])
    print("coverage: " + ", ".join(f"{share:.1f} % of {what}" for what, share in found.items()))
    low = [what for what, share in found.items() if share < minimum]
    for what in low:
        print(f"coverage of {what} is below {minimum:g} %", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
