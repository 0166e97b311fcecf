"""A reader of a Topic who swears: everything I must have got, I got, once and in order.

What must have come follows from three orders. The broker handles a publish between its beginning and its confirmation.
What was confirmed before another publish began is before it in every subscription. And a stretch without a gap is one
subscription. So within a stretch, a confirmed message must have come when

- it began after the reader was told of the gap before (or opened the stream), or after an earlier message of the same
  stretch was confirmed: then the subscription stood when the broker handled it; and
- a message that came later in the stretch began after it was confirmed, or the stream is still open at the end: then
  it was due before that one.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from tests.chaos.ledger import Flow, Outcome, decode, name

_POSITION = re.compile(r"([0-9A-Za-z_-]{6,16})\.([0-9]{1,15})")
#: Complaints that are kept word for word; the rest is counted.
_KEPT = 50
#: Gaps that stand in the ring: they have a number of their own.
_IN_RING = "link_lost"


class Witness:
    """One reader; told of everything that its stream brought, in order. Times are of the ledger's clock."""

    def __init__(self, flow: Flow, label: str) -> None:
        self.flow = flow
        self.label = label
        self.last_id = ""
        self.seen = flow.watch()
        self.gaps: Counter[str] = Counter()
        self.silent = 0
        self.duplicated = 0
        self.reordered = 0
        self.foreign = 0
        self.complaints: list[str] = []
        self.missing: set[int] = set()
        self._since = math.inf
        self._until = -math.inf
        self._anchor: int | None = None
        self._place = 0
        #: What the next event must be: a gap of this reason, `any` of any, "" nothing special.
        self._owed = ""

    # What the stream brings.

    def opened(self, position: str, now: float, *, restarted: bool = False) -> None:
        """The stream stands at this position; `restarted` since the one before by a restart of the gateway."""
        if not self.last_id:
            self._begin(now)
        elif restarted:
            self._owed = "restart"
        elif position != self.last_id:
            self._owed = "any"
        if not self._owed:
            self.last_id = position

    def gap(self, reason: str, position: str, now: float) -> None:
        """`event: gap`: what is missing before it is excused."""
        if self._owed == "restart" and reason != "restart":
            self._accuse(f"a gap {reason!r} where the restart was to be told")
        if reason == _IN_RING and not self._owed:
            self._follow(position)
        self._owed = ""
        self.last_id = position
        self.gaps[reason] += 1
        self._begin(now)

    def message(self, body: str, position: str) -> None:
        """An event with a message."""
        self._follow(position)
        try:
            key = decode(body)
            begun = self.flow.begun(key)
        except (ValueError, IndexError):
            self.foreign += 1
            self._complain(f"a message of nobody: {body[:40]!r}")
            return
        self.flow.judge(key)
        if self.seen.add(key):
            self.duplicated += 1
            self._complain(f"{name(key)} came twice")
            return
        self._find(key)
        self._raise_anchor(key)
        self._until = max(self._until, begun)
        self._settle()

    def finish(self, now: float) -> None:
        """The stream is open and quiet, all publishers have ended: everything must have come."""
        if self._owed:
            self._accuse("the stream went on elsewhere without a word")
        self._until = now
        self._settle()

    @property
    def behind(self) -> int:
        """Confirmed messages that are not yet known to have come, or to be excused."""
        log = self.flow.confirmed
        return sum(
            not self.seen[log[at]] and self.flow.begun(log[at]) > self._since for at in range(self._place, len(log))
        )

    # The proof.

    def _begin(self, now: float) -> None:
        """A new stretch."""
        self._since = now
        self._until = -math.inf
        self._anchor = None

    def _follow(self, position: str) -> None:
        """Positions are consecutive unless a gap was told."""
        if self._owed or not _is_next(self.last_id, position):
            self._accuse(f"position {position} after {self.last_id}, owed {self._owed!r}")
        self._owed = ""
        self.last_id = position

    def _find(self, key: int) -> None:
        if key in self.missing:
            self.missing.discard(key)
            self.silent -= 1
            self.reordered += 1
            self._complain(f"{name(key)} came after one that began when it was confirmed")

    def _raise_anchor(self, key: int) -> None:
        """The first confirmed message of a stretch proves that the subscription stood when it was handled."""
        anchor = key if self._anchor is None else self._anchor
        outcome = self.flow.outcome(anchor)
        if outcome is Outcome.CONFIRMED:
            self._since = min(self._since, self.flow.ended(anchor))
        self._anchor = anchor if outcome in {Outcome.CONFIRMED, Outcome.PENDING} else None

    def _settle(self) -> None:
        log = self.flow.confirmed
        while self._place < len(log) and self.flow.ended(log[self._place]) < self._until:
            key = log[self._place]
            if not self.seen[key] and self.flow.begun(key) > self._since:
                self.missing.add(key)
                self._accuse(f"{name(key)} was confirmed and never came")
            self._place += 1

    def _accuse(self, text: str) -> None:
        self.silent += 1
        self._complain(text)

    def _complain(self, text: str) -> None:
        if len(self.complaints) < _KEPT:
            self.complaints.append(f"{self.label}: {text}")


def _is_next(last: str, position: str) -> bool:
    before, now = _POSITION.fullmatch(last), _POSITION.fullmatch(position)
    return bool(before and now and before[1] == now[1] and int(now[2]) == int(before[2]) + 1)
