"""What became of the messages of a batch: numbers, and the failures one by one up to a bound."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from app.domain.errors import GatewayError, Outcome, Overloaded
from app.gateway.budget import Held

#: Failures (count) that are told one by one, characters of what is told of each, and bytes that are held for it.
MAX_FAILURES = 1000
MAX_DETAIL = 300
FAILURE_BYTES = 1024

#: From what is best to know to what is worst.
_BY_HARM = (Outcome.CONFIRMED, Outcome.UNCONFIRMED, Outcome.NOT_SENT, Outcome.REJECTED, Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Name:
    """A message of a batch: its number in it, from 0 on, and what the caller calls it."""

    index: int
    id: str | None = None


class Report:
    """Grows with the batch in its numbers only; `held` is memory for the failures, of which the rest is omitted."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.outcomes: Counter[Outcome] = Counter()
        #: The failure of the message that comes first.
        self.first: tuple[Name, GatewayError] | None = None
        self._failures: list[dict[str, Any]] = []
        self._omitted = 0

    @property
    def messages(self) -> int:
        """Messages (count) so far."""
        return self.outcomes.total()

    @property
    def taken(self) -> int:
        """Those (count) that the broker has, or with `confirm=none` the connection."""
        return self.outcomes[Outcome.CONFIRMED] + self.outcomes[Outcome.UNCONFIRMED]

    @property
    def worst(self) -> Outcome:
        """What is true of the one that ended worst: whoever looks at nothing else repeats nothing by mistake."""
        return max(self.outcomes, key=_BY_HARM.index, default=Outcome.CONFIRMED)

    @property
    def status(self) -> int:
        """The HTTP status where at least one was taken, or there was none."""
        if self.first is not None:
            return 207
        return 202 if self.outcomes[Outcome.UNCONFIRMED] else 200

    def ended(self, outcome: Outcome) -> None:
        """One message more, of which there is no more to be told."""
        self.outcomes[outcome] += 1

    def failed(self, name: Name, error: GatewayError) -> None:
        """One message more, and why it was not confirmed."""
        self.outcomes[error.outcome] += 1
        if self.first is None or name.index < self.first[0].index:
            self.first = (name, error)
        if not self._has_place():
            self._omitted += 1
            return
        self._failures.append(
            {
                "index": name.index,
                "id": name.id,
                "code": error.code.value,
                "outcome": error.outcome.value,
                "detail": str(error)[:MAX_DETAIL],
            }
        )

    def _has_place(self) -> bool:
        if len(self._failures) == MAX_FAILURES:
            return False
        try:
            self._held.grow(FAILURE_BYTES if self._failures else 0)  # one is always told
        except Overloaded:
            return False
        return True

    def members(self) -> dict[str, Any]:
        """The body of the answer (HTTP contract, section 1)."""
        return {
            "messages": self.messages,
            "confirmed": self.outcomes[Outcome.CONFIRMED],
            "outcomes": {outcome.value: self.outcomes[outcome] for outcome in _BY_HARM if self.outcomes[outcome]},
            "failures": sorted(self._failures, key=lambda failure: int(failure["index"])),
            "failures_omitted": self._omitted,
        }
