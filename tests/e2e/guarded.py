"""A gateway process that asks who everybody is, and the credentials of those it knows."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.auth.token_file import TokenEntry, entry_json, hash_of, new_token
from tests.e2e.http_client import Answer, ask, eventually
from tests.e2e.live_gateway import LiveGateway, write_config
from tests.unit.auth.jwt_issuer import AUDIENCE, ISSUER, Issuer, claims, document

Headers = dict[str, str]


def fresh(**changes: Any) -> dict[str, Any]:
    """The claims of a JWT that is good for some minutes."""
    return claims(**{"exp": int(time.time()) + 600, **changes})


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Guarded:
    """The process, the token of everybody who has one, and the issuer whose JWTs it takes."""

    gateway: LiveGateway
    tokens: dict[str, str]
    issuer: Issuer
    #: What must never be in the log.
    secrets: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Of HTTP."""
        return self.gateway.port

    def as_(self, name: str) -> Headers:
        """The credentials of somebody with an API token."""
        return bearer(self.tokens[name])

    async def ask(
        self, name: str, method: str, target: str, body: bytes | None = None, headers: Headers | None = None
    ) -> Answer:
        """One request of somebody with an API token."""
        return await ask(self.port, method, target, body, {**self.as_(name), **(headers or {})})

    async def until_up(self) -> None:
        """Every link is up; asked where nobody is asked who they are."""

        async def up() -> bool:
            ready = (await ask(self.port, "GET", "/health/ready")).json
            return set(ready["services"].values()) == {"up"}

        await eventually(up, "every link up")


@contextlib.contextmanager
def guarded(
    folder: Path, services: dict[str, Any], policy: list[dict[str, Any]], *, names: tuple[str, ...], **sections: Any
) -> Generator[Guarded]:
    """Modes token and jwt. `names` get a token each; the log is to show neither defects nor secrets at the end."""
    issuer = Issuer()
    tokens = {name: new_token() for name in names}
    entries = [TokenEntry(name=name, principal=name, hash=hash_of(token)) for name, token in tokens.items()]
    (folder / "tokens.json").write_text(json.dumps({"tokens": [entry_json(entry) for entry in entries]}))
    keys = sections.pop("keys", None) or [issuer.jwk()]
    (folder / "jwks.json").write_bytes(document(*keys))
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256", "ES256"], "jwks_file": "jwks.json"}
    auth = {"mode": ["token", "jwt"], "tokens_file": "tokens.json", "jwt": jwt, "policy": policy}
    config = write_config(folder, services, auth=auth, **sections)
    gateway = LiveGateway(config)
    try:
        gateway.await_start()
        found = Guarded(gateway, tokens, issuer, list(tokens.values()))
        yield found
        assert gateway.problems() == []
        log = gateway.log.read_text(errors="replace")
        assert [secret for secret in found.secrets if secret in log] == []
    finally:
        gateway.kill()
