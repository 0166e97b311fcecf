"""What this machine has and has not: a missing tool skips its tests loudly, and fails them where CI=true."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

import pytest

_PREFIX = "NOT RUN, missing: "


def not_run(package: str) -> NoReturn:
    """Skip because `package` (its name in Debian and Ubuntu) is not installed; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{package} is not installed, and CI=true allows no skip", pytrace=False)
    pytest.skip(_PREFIX + package)


def not_allowed(right: str) -> NoReturn:
    """Skip because this machine does not give `right`: as loud, but no failure in CI, where nobody can install it."""
    pytest.skip(_PREFIX + right)


def summary(reasons: Iterable[str]) -> list[str]:
    """One line for each missing package, from the reasons of skipped tests."""
    missing = Counter(reason.partition(_PREFIX)[2] for reason in reasons if _PREFIX in reason)
    return [f"NOT RUN: {number} tests, {package} missing" for package, number in sorted(missing.items())]
