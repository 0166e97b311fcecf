"""Places that are counted by who has them: open streams of one principal, of one address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from app.domain.errors import TooManyStreams


class Places:
    """`most` places (count) for each key, without end where it is None; `whose` is for people."""

    def __init__(self, most: int | None, whose: str) -> None:
        self._most = most
        self._whose = whose
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """One place for the length of the block; raises TooManyStreams."""
        if self._most is not None and self._taken[key] >= self._most:
            raise TooManyStreams(f"{self._most} event streams of {self._whose} are open, and there may be no more")
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
