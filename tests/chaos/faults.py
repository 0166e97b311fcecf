"""What is done to the broker and to the gateway, and when: all of it follows from the seed."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.chaos.offenders import Poisoner
from tests.chaos.site import HEARTBEAT_MS, Site

#: Seconds at the beginning without a fault, and between two.
WARM_UP = 8.0
REST = 3.0
#: Seconds at the end without a fault.
TAIL = (15.0, 30.0)
#: Three connections that end for no known reason within a minute make innocent destinations rest.
_BETWEEN_CLOSES = 35.0
_SPACING = 14.0
#: Seconds a drain may take: as long as the slow reader needs for what is queued.
_DRAIN = 16.0
_GATEWAY = "gateway restarted"
_CLOSE = "connections closed"
_SILENT = "paused beyond the heartbeat"
_KILLED = "killed and started"
_KILLED_PAUSED = "paused, killed and started"
_STOPPED = "stopped and started"
#: Each of them ends the link once, and every reader must be told.
ENDS_THE_LINK = (_SILENT, _KILLED, _KILLED_PAUSED, _STOPPED, _CLOSE)
#: Seconds as ranges; what has no length is over when the broker takes connections again.
_LENGTHS = {
    "paused shortly": (0.5, 2.5),
    _SILENT: (2 * HEARTBEAT_MS / 1000 + 2, 2 * HEARTBEAT_MS / 1000 + 4),
    _KILLED: (0.0, 2.0),
    _KILLED_PAUSED: (0.5, 1.5),
    _STOPPED: (0.0, 2.0),
    _CLOSE: (0.0, 0.0),
    "memory alarm": (2.0, 7.0),
    "poisoned": (0.0, 0.0),
}
KINDS = (*_LENGTHS, _GATEWAY)


@dataclass(frozen=True)
class Fault:
    """`at` seconds after the start of the run, or when the one before is over; `seconds` is how long it lasts."""

    at: float
    kind: str
    seconds: float = 0.0


def tail(seconds: float) -> float:
    """Seconds of calm at the end of a run."""
    return min(max(seconds * 0.15, TAIL[0]), TAIL[1])


def plan(seed: int, seconds: float) -> list[Fault]:
    """Every kind once in random order, then any of them; the gateway is restarted in the first third only.

    In a short run what comes late in the order may find no time.
    """
    chosen = random.Random(seed)
    end = seconds - tail(seconds)
    first = chosen.sample(list(_LENGTHS), len(_LENGTHS))
    spacing = min(_SPACING, (end - WARM_UP) / len(first))
    found: list[Fault] = []
    closed = -math.inf
    for index in range(int((end - WARM_UP) / spacing)):
        at = WARM_UP + spacing * (index + chosen.random() / 2)
        kind = first[index] if index < len(first) else chosen.choice(list(_LENGTHS))
        if kind == _CLOSE:
            if at - closed < _BETWEEN_CLOSES:
                continue
            closed = at
        found.append(Fault(at, kind, round(chosen.uniform(*_LENGTHS[kind]), 1)))
    return sorted([*found, *_restarts(seconds)], key=lambda fault: fault.at)


def _restarts(seconds: float) -> list[Fault]:
    """So that the last two thirds are the life of one process."""
    number = min(1 + int(seconds / 150), 5)
    last = seconds / 3 - _DRAIN
    return [Fault(max(WARM_UP, last * (index + 1) / number), _GATEWAY) for index in range(number)]


@dataclass
class Scheduler:
    """Does it, one after the other, and waits after each until the link is up again."""

    site: Site
    poisoner: Poisoner
    faults: list[Fault]
    done: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    #: Links that were not up again in time.
    unhealed: list[str] = field(default_factory=list)
    slowest_heal: float = 0.0

    async def run(self) -> None:
        """Until all are done; what would begin in the calm at the end is left out."""
        end = self.site.started + self.site.seconds - tail(self.site.seconds)
        for fault in self.faults:
            await asyncio.sleep(max(REST, self.site.started + fault.at - time.monotonic()))
            if time.monotonic() > end:
                self.skipped[fault.kind] += 1
                continue
            await self._do(fault)

    async def _do(self, fault: Fault) -> None:
        self.site.say(f"fault: {fault.kind}{f' for {fault.seconds:g} s' if fault.seconds else ''}")
        await self._deed(fault.kind)(fault.seconds)
        self.done[fault.kind] += 1
        try:
            took = await self.site.until_up("mq")
        except TimeoutError:
            self.unhealed.append(f"{fault.kind} at {time.monotonic() - self.site.started:.0f} s")
            self.site.say("NOT HEALED: the link is not up again")
            return
        self.slowest_heal = max(self.slowest_heal, took)
        self.site.say(f"over; link up after {took:.1f} s")

    def _deed(self, kind: str) -> Callable[[float], Awaitable[None]]:
        return {
            "paused shortly": self._pause,
            _SILENT: self._pause,
            _KILLED: self._kill,
            _KILLED_PAUSED: self._kill_paused,
            _STOPPED: self._stop,
            _CLOSE: self._close,
            "memory alarm": self._alarm,
            "poisoned": self._poison,
            _GATEWAY: self._restart_gateway,
        }[kind]

    async def _pause(self, seconds: float) -> None:
        await self.site.broker.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.site.broker.resume()

    async def _kill(self, seconds: float) -> None:
        await self.site.broker.kill()
        await asyncio.sleep(seconds)
        await self.site.broker.start()

    async def _kill_paused(self, seconds: float) -> None:
        """What was sent to it and not yet read dies with it: whoever is told that it was confirmed is lied to."""
        await self.site.broker.pause()
        await asyncio.sleep(seconds)
        await self.site.broker.kill()
        await self.site.broker.start()

    async def _stop(self, seconds: float) -> None:
        await self.site.broker.stop()
        await asyncio.sleep(seconds)
        await self.site.broker.start()

    async def _close(self, _seconds: float) -> None:
        self.site.say(f"       {await self.site.broker.close_connections()} connections")

    async def _alarm(self, seconds: float) -> None:
        await self.site.broker.memory_alarm(True)
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.site.broker.memory_alarm(False)

    async def _poison(self, _seconds: float) -> None:
        await self.poisoner.burst()

    async def _restart_gateway(self, _seconds: float) -> None:
        ended = await self.site.stop_gateway()
        self.site.say(f"       exit code {ended.code} after {ended.seconds:.1f} s")
        await self.site.start_gateway()
