"""A JWK Set (RFC 7517 section 5): all keys of an issuer, as far as they can be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from app.auth.jwk import Key, UnusableKey, parse_key

#: Bytes of a document, and keys (count) in it.
MAX_DOCUMENT = 256 << 10
MAX_KEYS = 64


class UnusableSet(ValueError):
    """No keys can be had of this document; the text says why, and nothing of what is in it."""


class TooLarge(UnusableSet):
    """It is longer, or has more keys, than any issuer needs."""


@dataclass(frozen=True, eq=False)
class KeySet:
    """Keys, and a sentence for each that was left out."""

    keys: tuple[Key, ...]
    left_out: tuple[str, ...] = field(default=())

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(key.name for key in self.keys)

    def fitting(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys of that name, of whatever name where None is given, that serve the algorithm."""
        return [key for key in self.keys if kid in (None, key.kid) and algorithm in key.by_algorithm]


def parse_set(document: bytes, allowed: Iterable[str]) -> KeySet:
    """Raises UnusableSet where it is no JWK Set, or none of its keys can be used."""
    if len(document) > MAX_DOCUMENT:
        raise TooLarge(f"it has more than {MAX_DOCUMENT} bytes")
    found = _keys(document)
    if len(found) > MAX_KEYS:
        raise TooLarge(f"it has more than {MAX_KEYS} keys")
    keys: dict[str, Key] = {}
    left_out: list[str] = []
    for place, jwk in enumerate(found, 1):
        try:
            key = parse_key(jwk, allowed)
        except UnusableKey as error:
            left_out.append(f"key {place}{_called(jwk)} is not used: {error}")
        else:
            keys[key.name] = key
    if not keys:
        raise UnusableSet("; ".join(["it has no key that can be used", *left_out[:3]]))
    return KeySet(tuple(keys.values()), tuple(left_out))


def _keys(document: bytes) -> list[Any]:
    try:
        value = from_json(document, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        raise UnusableSet("it is not JSON") from None
    found = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise UnusableSet("it is no JWK Set: a JSON object with an array `keys`")
    return found


def _called(jwk: object) -> str:
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    return f" ({kid[:64]!a})" if isinstance(kid, str) else ""
