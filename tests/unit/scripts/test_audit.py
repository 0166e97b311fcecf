"""The audit of dependencies: what counts as an answer, and for how long."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scripts import audit

CLEAN = json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]})
UNKNOWN = json.dumps({"dependencies": [{"name": "b", "skip_reason": "not found"}]})
BAD = json.dumps(
    {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2", "3"]}]}]}
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CLEAN, ([], [])),
        (BAD, (["a 1: CVE-1, fixed in 2, 3"], [])),
        (UNKNOWN, ([], ["b"])),
        ("", None),
        ("[]", None),
        ("no route to host", None),
        ("{}", None),
    ],
)
def test_findings(answer: str, expected: tuple[list[str], list[str]] | None) -> None:
    assert audit.findings(answer) == expected


@pytest.mark.parametrize(
    ("answer", "code", "remembered"), [(CLEAN, 0, True), (BAD, 1, False), (UNKNOWN, 0, False), ("", 0, False)]
)
def test_only_a_clean_answer_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, remembered: bool
) -> None:
    pins, stamp = tmp_path / "constraints.txt", tmp_path / "stamp"
    pins.touch()
    os.utime(pins, (1, 1))
    monkeypatch.setattr(audit, "ask", lambda _pins: answer)
    assert audit.main(pins, stamp) == code
    assert stamp.exists() == remembered


def test_an_answer_is_good_for_a_day_and_these_pins(tmp_path: Path) -> None:
    pins, stamp = tmp_path / "constraints.txt", tmp_path / "stamp"
    pins.touch()
    os.utime(pins, (1000, 1000))
    assert not audit.fresh(pins, stamp, 3000)
    stamp.touch()
    os.utime(stamp, (2000, 2000))
    assert audit.fresh(pins, stamp, 3000)
    assert not audit.fresh(pins, stamp, 2000 + audit.DAY)
    os.utime(pins, (2500, 2500))
    assert not audit.fresh(pins, stamp, 3000)
