"""A JWT before anything is believed of it: three parts, and JSON that everybody reads alike (RFC 7515, RFC 7493)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

from app.auth.jwt_refusal import JwtRefused, Reason

#: Bytes of a token: what proxies let through in one header.
MAX_TOKEN = 8192
#: Levels of arrays and objects within each other: whoever walks a claim need not fear its depth.
MAX_DEPTH = 16

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
#: The kinds of JWT that are shown to a resource server (RFC 7519 section 5.1, RFC 9068 section 2.1).
_KINDS = frozenset({"jwt", "at+jwt"})


@dataclass(frozen=True, slots=True)
class Head:
    """What is used of the JOSE header. `jwk`, `jku`, `x5u`, `x5c`: keys come from the issuer, never from the token."""

    algorithm: str
    kid: str | None


def check_size(token: str) -> None:
    """Raises JwtRefused for what is not even looked at."""
    if len(token) > MAX_TOKEN:
        raise JwtRefused(Reason.TOO_LONG)


def check_form(token: str) -> None:
    """Raises JwtRefused unless this may be a JWS in compact form; reads it once, without decoding."""
    if not _COMPACT.fullmatch(token):
        raise JwtRefused(Reason.MALFORMED)


def parse_head(token: str) -> Head:
    """The header of what `check_form` let through."""
    header = parse_object(_decode(token.partition(".")[0]))
    # No extension is understood here, and RFC 7515 section 4.1.11 has whoever does not understand one refuse. RFC 7797
    # section 7 forbids `b64` in a JWT.
    if "crit" in header or "b64" in header:
        raise JwtRefused(Reason.MALFORMED)
    algorithm, kid, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "JWT")
    if not (isinstance(algorithm, str) and isinstance(kid, str) and isinstance(kind, str)):
        raise JwtRefused(Reason.MALFORMED)
    if kind.lower().removeprefix("application/") not in _KINDS:
        raise JwtRefused(Reason.KIND)
    return Head(algorithm, kid if "kid" in header else None)


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object; raises JwtRefused for anything else, and for what two parsers could read in two ways."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise JwtRefused(Reason.MALFORMED) from None
    if not isinstance(value, dict) or not _is_plain(value):
        raise JwtRefused(Reason.MALFORMED)
    return value


def _decode(part: str) -> bytes:
    """Of the texts that decode to the same bytes only the one that encoding makes of them."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise JwtRefused(Reason.MALFORMED) from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise JwtRefused(Reason.MALFORMED)
    return data


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) != len(members):
        raise ValueError("a member is given more than once")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _is_plain(value: dict[str, Any]) -> bool:
    """Whether it is not nested too deeply, and all its texts are text: no half of a surrogate pair."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str) and not _is_text(one):
                return False
        if not inner:
            return True
        level = inner
    return False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
