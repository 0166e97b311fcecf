"""Audit the pinned dependencies for published vulnerabilities: audit.py CONSTRAINTS STAMP

No answer from the advisory database is a warning, a vulnerability is exit code 1. A clean answer is remembered in STAMP
for a day, so that every run of the checks does not ask again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

DAY = 24 * 3600
#: Seconds for the whole audit.
TIMEOUT = 120


def fresh(constraints: Path, stamp: Path, now: float) -> bool:
    """Whether these very constraints were found clean less than a day ago."""
    if not stamp.exists():
        return False
    answered = stamp.stat().st_mtime
    return answered > constraints.stat().st_mtime and now - answered < DAY


def findings(answer: str) -> tuple[list[str], list[str]] | None:
    """One line for each vulnerability in pip-audit's JSON, and the packages the database does not know.

    None where the answer is not an audit.
    """
    try:
        packages = json.loads(answer)["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    vulnerable = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    return vulnerable, [package["name"] for package in packages if "skip_reason" in package]


def ask(constraints: Path) -> str:
    """Run pip-audit over the pins as they are; empty where it did not come to an end."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def main(constraints: Path, stamp: Path) -> int:
    if fresh(constraints, stamp, time.time()):
        return 0
    found = findings(ask(constraints))
    if found is None:
        print("WARNING: dependencies not audited, the advisory database did not answer", file=sys.stderr)
        return 0
    vulnerable, unknown = found
    if vulnerable:
        print("vulnerable dependencies:", *vulnerable, sep="\n  ", file=sys.stderr)
        return 1
    if unknown:
        print(f"WARNING: {len(unknown)} dependencies not audited, {unknown[0]} among them", file=sys.stderr)
        return 0
    stamp.touch()
    print("audit: no known vulnerability")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
