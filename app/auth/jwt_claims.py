"""What a JWT says, once its signature has been verified (RFC 7519 section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.auth.jwt_refusal import JwtRefused, Reason
from app.config.jwt import JwtSettings
from app.domain.principal import check_principal

#: The year 9999. Beyond it are milliseconds that are taken for seconds, and numbers that are no time at all.
MAX_TIME = 253_402_300_799
#: Seconds by which a token may be from the future: it is shown as soon as it is made, and clocks are never the same.
AHEAD = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token is about, and the Unix time at which it ends, leeway included."""

    name: str
    groups: frozenset[str]
    until: float


def check_claims(payload: dict[str, Any], settings: JwtSettings, now: float) -> Subject:
    """Raises JwtRefused for a token of another issuer, for another audience, at another time, or about nobody."""
    if payload.get("iss") != settings.issuer:
        raise JwtRefused(Reason.ISSUER)
    if not set(_texts(payload.get("aud", []), Reason.AUDIENCE)) & set(settings.audience):
        raise JwtRefused(Reason.AUDIENCE)
    until = _check_times(payload, settings.leeway, now)
    _text(payload.get("sub", ""))
    name = _text(payload.get(settings.principal_claim))
    try:
        check_principal(name)
    except ValueError:
        raise JwtRefused(Reason.CLAIMS) from None
    groups = frozenset(_texts(payload.get(settings.groups_claim, []), Reason.CLAIMS))
    return Subject(name, groups, until)


def _check_times(payload: dict[str, Any], leeway: float, now: float) -> float:
    """The end of its life; a token that does not end is not taken."""
    ends = _time(payload.get("exp"))
    # Compared before it is reckoned with: a number of four thousand digits is no float.
    if ends > MAX_TIME:
        raise JwtRefused(Reason.CLAIMS)
    if ends <= now - leeway:
        raise JwtRefused(Reason.EXPIRED)
    for claim in ("nbf", "iat"):
        if _time(payload.get(claim, 0)) > now + max(leeway, AHEAD):
            raise JwtRefused(Reason.NOT_YET_VALID)
    return min(ends + leeway, MAX_TIME)


def _time(value: object) -> float:
    """A NumericDate (RFC 7519 section 2): a number. `true` is none in JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JwtRefused(Reason.CLAIMS)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise JwtRefused(Reason.CLAIMS)
    return value


def _texts(value: object, reason: Reason) -> list[str]:
    """One text, or a list of them."""
    values = value if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str)]
    if len(texts) != len(values):
        raise JwtRefused(reason)
    return texts
