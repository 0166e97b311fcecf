"""A clock that a test sets, and principals without a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.domain.principal import Principal


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def somebody(name: str = "alice", **fields: Any) -> Principal:
    values = {"way": "token", "label": name, "credential": f"token:{name}:0"} | fields
    return Principal(name=name, **values)
