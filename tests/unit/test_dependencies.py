"""The dependencies: each explained, each pinned, none copyleft at run time."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN_TIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for group in PROJECT["dependency-groups"].values() for text in group]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
# The weak copyleft of the MPL ends at the file, and certifi's is data.
ALLOWED = {"certifi": "MPL-2.0"}


def run_time_closure() -> set[str]:
    """Every distribution the gateway needs at run time, on this platform and Python."""
    found: set[str] = set()
    waiting = list(RUN_TIME)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        extras = requirement.extras or {""}
        for text in distribution(name).requires or []:
            child = Requirement(text)
            wanted = child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras)
            if wanted and (canonicalize_name(child.name) not in found or child.extras):
                waiting.append(child)
    return found


def licence(name: str) -> str:
    """What the distribution says of its licence, wherever it says it."""
    metadata = distribution(name).metadata
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License")]
    texts = [text[:80] for key in ("License-Expression", "License") for text in metadata.get_all(key) or []]
    return " ".join([*texts, *classifiers])


@pytest.mark.parametrize("name", sorted(requirement.name for requirement in (*RUN_TIME, *DEVELOPMENT)))
def test_each_is_explained(name: str) -> None:
    assert re.search(rf"^\| {re.escape(name)} \| .+ \|$", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)


def test_nothing_is_explained_that_is_not_used() -> None:
    page = (ROOT / "docs/dependencies.md").read_text().partition("## Programs")[0]
    explained = set(re.findall(r"^\| ([\w.-]+) \| ", page, re.MULTILINE)) - {"package"}
    assert explained == {requirement.name for requirement in (*RUN_TIME, *DEVELOPMENT)}


def test_each_is_pinned_within_its_range() -> None:
    pinned = {canonicalize_name(pin.partition("==")[0]): pin.partition("==")[2] for pin in PINS}
    for requirement in (*RUN_TIME, *DEVELOPMENT):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_everything_at_run_time_is_pinned() -> None:
    pinned = {canonicalize_name(pin.partition("==")[0]) for pin in PINS}
    assert run_time_closure() <= pinned


def test_pins_are_versions_and_no_addresses() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)] == []


def test_no_copyleft_at_run_time() -> None:
    words = re.compile(r"GPL|General Public|MPL|Mozilla|EUPL|CDDL|EPL-|Eclipse")
    copyleft = {name for name in run_time_closure() if words.search(licence(name))}
    assert copyleft == set(ALLOWED)
