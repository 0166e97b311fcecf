"""Callers of a gateway that asks who they are: a file of tokens that a test writes, and how they show one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from app.auth.sessions import COOKIE
from app.auth.token_change import change_tokens
from app.auth.token_file import TokenEntry, hash_of, new_token

#: Seconds within which what was revoked has ended.
REVOKED_WITHIN = 5.0

#: Of the callers that most tests need: `alice` does all in `demo`, `bob` looks and publishes to one Queue.
POLICY: list[dict[str, Any]] = [
    {"principals": ["alice", "carol"], "allow": ["publish", "subscribe", "take", "look"], "uris": ["demo::*"]},
    {"principals": ["bob"], "allow": ["publish", "look"], "uris": ["demo::Queues::jobs"]},
    {"principals": ["group:readers"], "allow": ["subscribe"], "uris": ["demo::Topics::events"]},
]


class Callers:
    """The file of tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        change_tokens(self.path, lambda _entries: [])

    def add(self, name: str, *groups: str, principal: str = "", seconds: float | None = None) -> str:
        """A new token; with `seconds` it ends so soon, at a whole second of the clock."""
        token = new_token()
        entry = TokenEntry(
            name=name,
            principal=principal or name,
            hash=hash_of(token),
            groups=groups,
            expires_at=None if seconds is None else float(int(time.time() + seconds)),
        )
        change_tokens(self.path, lambda entries: [*entries, entry])
        return token

    def change(self, name: str, **fields: Any) -> None:
        """The token of this name, with other fields."""
        change_tokens(
            self.path,
            lambda entries: [replace(each, **fields) if each.name == name else each for each in entries],
        )

    def revoke(self, name: str) -> None:
        change_tokens(self.path, lambda entries: [each for each in entries if each.name != name])

    def auth(self, **more: Any) -> dict[str, Any]:
        """The section of the configuration."""
        return {"mode": "token", "tokens_file": str(self.path), "policy": POLICY, **more}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={value}"}


async def known(client: httpx.AsyncClient, token: str) -> None:
    """Wait until the file of tokens was read again, and has this one."""
    async with asyncio.timeout(REVOKED_WITHIN):
        while (await client.get("/session", headers=bearer(token))).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
