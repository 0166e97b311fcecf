"""How large the tests of the limits are: small in every run, as claimed with `LIMITS=full` in the environment.

The figures are printed: `LIMITS=full pytest -n0 -s tests/e2e -k limits`.
"""

from __future__ import annotations

import os
from typing import TypeVar

FULL = os.environ.get("LIMITS") == "full"

S = TypeVar("S", int, float)


def sized(small: S, full: S) -> S:
    """One of the two."""
    return full if FULL else small
