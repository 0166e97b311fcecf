"""Places that are counted by who has them: open streams of one principal or address, long polls of one principal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from app.domain.errors import TooManyStreams, Unavailable


class Places:
    """`most` places (count) for each key, without end where it is None; `what` of `whose` is for people."""

    def __init__(
        self, most: int | None, whose: str, what: str = "event streams", refuse: type[Unavailable] = TooManyStreams
    ) -> None:
        self._most = most
        self._what = f"{what} of {whose}"
        self._refuse = refuse
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """One place for the length of the block; raises what it refuses with."""
        if self._most is not None and self._taken[key] >= self._most:
            raise self._refuse(f"{self._most} {self._what} are open, and there may be no more")
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]  # keys come without end

    @property
    def taken(self) -> Mapping[str, int]:
        """Places (count) by who has them."""
        return self._taken
