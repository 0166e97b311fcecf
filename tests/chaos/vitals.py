"""What the kernel says of the gateway's process, and how it develops."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """`rss` in bytes, `cpu` in seconds since its start, at `at` (monotonic seconds)."""

    at: float
    rss: int
    descriptors: int
    threads: int
    cpu: float


def vitals_of(pid: int) -> Vitals | None:
    """None where the process is gone."""
    proc = Path(f"/proc/{pid}")
    try:
        rss = int((proc / "statm").read_text().split()[1]) * _PAGE
        # After the name in parentheses, which may hold anything.
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(proc / "fd"))
    except (OSError, IndexError):
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICK
    return Vitals(time.monotonic(), rss, descriptors, int(fields[17]), cpu)


def slope(samples: Sequence[Vitals]) -> float:
    """Growth of RSS in MiB for 10 minutes, by least squares; 0 where there is nothing to compare."""
    if len(samples) < 3:
        return 0.0
    middle = sum(each.at for each in samples) / len(samples)
    mean = sum(each.rss for each in samples) / len(samples)
    spread = sum((each.at - middle) ** 2 for each in samples)
    return sum((each.at - middle) * (each.rss - mean) for each in samples) / spread * 600 / MIB if spread else 0.0
