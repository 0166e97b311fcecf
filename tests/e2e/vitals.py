"""What a process costs, from the kernel's tables; and how long things took, from clocks of this side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Vitals:
    """Memory in MiB (`peak` since `forget_peak`), open descriptors and threads (counts)."""

    rss: float
    peak: float
    descriptors: int
    threads: int


def vitals(pid: int) -> Vitals:
    """Of a process at this moment."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {name: value.split() for name, _, value in lines}
    kib = {name: int(status[name][0]) for name in ("VmRSS", "VmHWM")}
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Vitals(kib["VmRSS"] / 1024, kib["VmHWM"] / 1024, descriptors, int(status["Threads"][0]))


def forget_peak(pid: int) -> None:
    """From here on `peak` is that of what follows (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass(slots=True)
class Times:
    """Seconds that one kind of thing took, each time it was done."""

    name: str
    seconds: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        return percentile(self.seconds, 50)

    @property
    def p99(self) -> float:
        return percentile(self.seconds, 99)

    @property
    def worst(self) -> float:
        return max(self.seconds)

    def __str__(self) -> str:
        shown = [f"{1000 * value:.1f}" for value in (self.p50, self.p99, self.worst)]
        return f"{self.name}: {len(self.seconds)} times, p50 {shown[0]}, p99 {shown[1]}, worst {shown[2]} ms"

    def unchanged_since(self, before: Times, *, factor: float, floor: float) -> None:
        """At most `factor` times what they were, or below `floor` seconds (p99), a quarter of it (p50).

        The floor is below what a wait for the one who stopped would take, and above what a busy machine does.
        Raises AssertionError.
        """
        assert self.p99 <= max(factor * before.p99, floor), f"{before} -> {self}"
        assert self.p50 <= max(factor * before.p50, floor / 4), f"{before} -> {self}"


@contextlib.asynccontextmanager
async def repeating(every: float, *asked: tuple[Times, Callable[[], Awaitable[object]]]) -> AsyncIterator[None]:
    """Each call again and again while the block runs, with pauses of `every` seconds; its times are taken down."""

    async def repeat(times: Times, call: Callable[[], Awaitable[object]]) -> None:
        while not over.is_set():
            begun = time.perf_counter()
            await call()
            times.seconds.append(time.perf_counter() - begun)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await over.wait()

    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for times, call in asked:
            group.create_task(repeat(times, call))
        try:
            yield
        finally:
            over.set()
