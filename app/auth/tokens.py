"""API tokens at work: the file in memory, by hash."""

from __future__ import annotations

import hmac
from pathlib import Path

from app.auth.token_file import PREFIX, TokenEntry, hash_of, read_tokens
from app.domain.principal import Principal

#: Hexadecimal digits of a hash that tell one credential from another.
_SHORT = 16


class Tokens:
    """Finds the principal of a token. `label` makes the name that others know it by."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self._label = label
        self._entries: dict[str, tuple[TokenEntry, Principal]] = {}
        self._credentials: dict[str, Principal] = {}

    def read(self) -> list[TokenEntry]:
        """What the file says now; raises TokenFileError."""
        return read_tokens(self.path)

    def adopt(self, entries: list[TokenEntry]) -> None:
        """These from now on. One that is as it was keeps its principal: what was decided about it still holds."""
        before = self._entries
        self._entries = {}
        for entry in entries:
            known = before.get(entry.hash)
            keep = known is not None and known[0] == entry
            self._entries[entry.hash] = known if keep and known else (entry, self._principal(entry))
        self._credentials = {principal.credential: principal for _, principal in self._entries.values()}

    def _principal(self, entry: TokenEntry) -> Principal:
        return Principal(
            name=entry.principal,
            way="token",
            label=self._label.format(entry.principal),
            groups=frozenset(entry.groups),
            until=entry.expires_at,
            credential=f"token:{entry.name}:{entry.hash.removeprefix('sha256:')[:_SHORT]}",
        )

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether this is written like a token of ours."""
        return text.startswith(PREFIX)

    def find(self, token: str) -> Principal | None:
        """Whose token this is. How long the look-up takes tells of its hash, and of that nobody can choose a digit."""
        digest = hash_of(token)
        found = self._entries.get(digest)
        if found is None or not hmac.compare_digest(found[0].hash, digest):
            return None
        return found[1]

    def current(self, credential: str) -> Principal | None:
        """The principal of a credential as the file has it now."""
        return self._credentials.get(credential)

    def __len__(self) -> int:
        return len(self._entries)
