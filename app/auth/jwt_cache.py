"""Tokens that were verified: the second request with one costs a digest, and finds the same Principal."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from app.domain.principal import Principal

#: Tokens (count), and bytes of their text: what is kept of each is a small multiple of it.
MAX_TOKENS = 10_000
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    size: int


class VerifiedTokens:
    """By digest, the ones not used for longest go first. Refusals are not kept: they would drive out what is good."""

    def __init__(self, tokens: int = MAX_TOKENS, size: int = MAX_BYTES) -> None:
        self._most, self._most_bytes = tokens, size
        self._kept: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of the tokens that are known."""
        return self._bytes

    def find(self, digest: bytes) -> Principal | None:
        """Whom this token was found to be about."""
        entry = self._kept.get(digest)
        if entry is None:
            return None
        self._kept.move_to_end(digest)
        return entry.principal

    def keep(self, digest: bytes, principal: Principal, size: int) -> None:
        """Remember a token of this many bytes."""
        self.drop(digest)
        self._kept[digest] = _Entry(principal, size)
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def drop(self, digest: bytes) -> None:
        """Forget one, if it is there."""
        entry = self._kept.pop(digest, None)
        if entry is not None:
            self._bytes -= entry.size

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0
