"""What the environment says about a run."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: Seconds: shorter runs have no room for a fault, longer ones no bounded ledger.
SECONDS = (30.0, 24 * 3600.0)
BROKERS = ("rabbitmq", "docker")


@dataclass(frozen=True, kw_only=True)
class ChaosSettings:
    """`CHAOS_SECONDS`, `CHAOS_BROKER`, `CHAOS_SEED`, `CHAOS_REPORT`, `CHAOS_PLOT`, `CHAOS_IMAGE`."""

    seconds: float = 180.0
    broker: str = "rabbitmq"
    seed: int = 0
    report: Path | None = None
    plot: Path | None = None
    image: str = "rabbitmq:4-management"

    @classmethod
    def from_environment(cls) -> Self:
        """Raises ValueError naming the variable."""
        seconds = float(os.environ.get("CHAOS_SECONDS") or 180)
        if not SECONDS[0] <= seconds <= SECONDS[1]:
            raise ValueError(f"CHAOS_SECONDS is {seconds:g} and must be between {SECONDS[0]:g} and {SECONDS[1]:g}")
        broker = os.environ.get("CHAOS_BROKER") or "rabbitmq"
        if broker not in BROKERS:
            raise ValueError(f"CHAOS_BROKER is {broker!r} and must be one of {', '.join(BROKERS)}")
        return cls(
            seconds=seconds,
            broker=broker,
            seed=int(os.environ.get("CHAOS_SEED") or random.randrange(10**6)),
            report=_path("CHAOS_REPORT"),
            plot=_path("CHAOS_PLOT"),
            image=os.environ.get("CHAOS_IMAGE") or cls.image,
        )


def _path(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None
