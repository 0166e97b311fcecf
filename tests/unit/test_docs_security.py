"""docs/security.md: the tests it names exist, each row names one, and its configurations are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.config.loader import check_exposure, load_settings
from tests.test_conformance import known

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count(" | ") == 2]

_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
#: Where the blocks have their files.
FOLDER = "/etc/mq-gateway"
BASE = "services: {grid: {mq_type: Memory}}\n"


def test_it_sees_what_there_is() -> None:
    assert ("unit/test_docs_security.py", "test_it_sees_what_there_is") in known()
    assert len(_NAMED.findall(TEXT)) == TEXT.count(".py::") > 100
    assert len(BLOCKS) > 5


def test_every_test_that_is_named_exists() -> None:
    assert [name for name in _NAMED.findall(TEXT) if name not in known()] == []


def test_every_attack_has_a_test() -> None:
    tables = TEXT.partition("\n## Anybody")[2].partition("\n## What it does not")[0]
    attacks = [row for row in ROWS if row in tables and not row.endswith("| tests |")]
    assert len(attacks) > 30
    assert [row for row in attacks if not _NAMED.search(row)] == []


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[1].strip() for block in BLOCKS])
def test_its_configurations_are_valid(tmp_path: Path, block: str) -> None:
    for name in re.findall(rf"{FOLDER}/([\w.-]+)", block):
        (tmp_path / name).write_text("sixteen bytes at the least")
    base, own = tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text(BASE)
    own.write_text(block.replace(FOLDER, str(tmp_path)))
    settings = load_settings([base, own], environ={}).settings
    check_exposure(settings)
    assert settings.services
