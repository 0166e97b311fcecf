"""What the gateway signs for browsers: sessions and tickets. JWTs (RFC 7519) that nobody else makes or takes.

They say whose they are, and of groups and claims what the policy looks at: a cookie has 4096 bytes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from app.domain.principal import Principal

#: Characters that are looked at: no browser keeps a longer cookie.
MAX_CHARACTERS = 4000
_ALGORITHM = "HS256"
_REQUIRED = ("exp", "jti", "sub", "way", "key")


class SealError(Exception):
    """Not one of ours, or over; `reason` is `malformed`, `signature` or `expired`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooLarge(Exception):
    """What would have to be said does not fit."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An opened seal: its own id, when it ends (Unix time in seconds), whose it is, and what else it says."""

    id: str
    until: float
    principal: Principal
    more: Mapping[str, Any]


class Seal:
    """Makes and opens what is for one purpose, with the key for it: 32 bytes."""

    def __init__(self, key: bytes, purpose: str) -> None:
        self._key = key
        self._purpose = f"mq-gateway {purpose}"

    def make(
        self,
        principal: Principal,
        *,
        until: float,
        groups: Collection[str],
        claims: Mapping[str, Any],
        session: str = "",
        **more: Any,  # noqa: ANN401 - JSON is any value
    ) -> str:
        """A sealed text; raises TooLarge. Of the principal's groups and claims only these are told."""
        said = {
            "aud": self._purpose,
            "exp": until,
            "jti": secrets.token_urlsafe(16),
            "sub": principal.name,
            "way": principal.way,
            "label": principal.label,
            "key": principal.credential,
            "session": session,
            "end": principal.until,
            "groups": sorted(groups),
            "claims": dict(claims),
            **more,
        }
        text = jwt.encode(said, self._key, _ALGORITHM)
        if len(text) > MAX_CHARACTERS:
            raise TooLarge
        return text

    def open(self, text: str, *, at: float | None = None) -> Sealed:
        """What it says; raises SealError. `at` (Unix time): take it for one of that time."""
        if len(text) > MAX_CHARACTERS:
            raise SealError("malformed")
        try:
            said = jwt.decode(
                text,
                self._key,
                algorithms=[_ALGORITHM],
                audience=self._purpose,
                options={"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidSignatureError:
            raise SealError("signature") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise SealError("malformed") from None
        try:
            sealed = Sealed(said["jti"], float(said["exp"]), _principal(said), said)
        except (KeyError, TypeError, ValueError):
            raise SealError("malformed") from None  # of another version that has the same secret
        if sealed.until <= (time.time() if at is None else at):
            raise SealError("expired")
        return sealed


def _principal(said: Mapping[str, Any]) -> Principal:
    """As it was sealed: whoever has our key could say anything."""
    return Principal(
        name=said["sub"],
        way=said["way"],
        label=said["label"],
        groups=frozenset(said["groups"]),
        claims=said["claims"],
        until=said["end"],
        credential=said["key"],
        session=said["session"],
    )
