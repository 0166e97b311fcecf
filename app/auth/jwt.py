"""Whom a JSON Web Token is about, if it is good (RFC 7519, RFC 8725)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from types import MappingProxyType

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError

from app.auth.jwk import Key
from app.auth.jwk_set import KeySet
from app.auth.jwks import KeySource
from app.auth.jwt_cache import VerifiedTokens
from app.auth.jwt_claims import check_claims
from app.auth.jwt_form import Head, check_form, check_size, parse_head, parse_object
from app.auth.jwt_refusal import JwtRefused, Reason
from app.config.jwt import JwtSettings
from app.domain.errors import KeysUnavailable
from app.domain.principal import Principal

#: Keys (count) that are tried for one token: its `kid` names one, where the issuer follows RFC 7515 section 4.1.4.
MAX_TRIES = 4

_WAY = "jwt"


class JwtVerifier:
    """Takes the tokens of one issuer. `label` says by which name limits and logs know a principal, given its name."""

    def __init__(
        self,
        settings: JwtSettings,
        keys: KeySource,
        *,
        clock: Callable[[], float] = time.time,
        label: Callable[[str], str] = lambda name: "",
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._label = label
        self._allowed = frozenset(settings.algorithms)
        self._jws = PyJWS(algorithms=settings.algorithms, options={"enforce_minimum_key_length": True})
        self._cache = VerifiedTokens()
        self._cached_with: KeySet | None = None

    async def verify(self, token: str) -> Principal:
        """The same Principal each time for the same token. Raises JwtRefused, KeysUnavailable and nothing else.

        Waits only where its key is not known, and then for one fetch.
        """
        check_size(token)
        known = self._known(token)
        if known is not None:
            return known
        check_form(token)
        head = parse_head(token)
        if head.algorithm not in self._allowed:
            raise JwtRefused(Reason.ALGORITHM)
        try:
            return self._verify(token, head)
        except KeysUnavailable:
            if not await self._keys.renewed():
                raise
        except JwtRefused as refused:
            if refused.reason is not Reason.UNKNOWN_KEY or not await self._keys.renewed():
                raise
        # Whoever waited with the same token may have been quicker.
        return self._known(token) or self._verify(token, head)

    def holds(self, principal: Principal) -> bool:
        """Whether the key that vouches for a principal of ours is still good; also where its keys are too old."""
        try:
            keys = self._keys.current()
        except KeysUnavailable:
            return False
        way, _, rest = principal.credential.partition(":")
        return way == _WAY and rest.partition(":")[0] in keys.names

    def _present(self) -> KeySet:
        """The keys; what was verified with one that is gone, or is another now, is forgotten."""
        keys = self._keys.current()
        if keys is not self._cached_with:
            if self._cached_with is not None and not self._cached_with.names <= keys.names:
                self._cache.clear()
            self._cached_with = keys
        return keys

    def _known(self, token: str) -> Principal | None:
        """Who this token was about, where it has been verified before."""
        try:
            self._present()
        except KeysUnavailable:
            return None
        digest = _digest(token)
        found = self._cache.find(digest)
        if found is not None and found.until is not None and found.until <= self._clock():
            self._cache.drop(digest)
            raise JwtRefused(Reason.EXPIRED)
        return found

    def _verify(self, token: str, head: Head) -> Principal:
        for key in self._fitting(head):
            signed = self._signed(token, key, head.algorithm)
            if signed is not None:
                return self._principal(token, key, signed)
        raise JwtRefused(Reason.SIGNATURE)

    def _fitting(self, head: Head) -> list[Key]:
        keys = self._present()
        fitting = keys.fitting(head.kid, head.algorithm)
        if 0 < len(fitting) <= MAX_TRIES:
            return fitting
        # A key that is there but for another algorithm: there is nothing to ask the issuer.
        named = head.kid is not None and any(key.kid == head.kid for key in keys.keys)
        raise JwtRefused(Reason.ALGORITHM if named and not fitting else Reason.UNKNOWN_KEY)

    def _signed(self, token: str, key: Key, algorithm: str) -> bytes | None:
        """The payload if this key has signed it."""
        try:
            payload: bytes = self._jws.decode(token, key.by_algorithm[algorithm], algorithms=[algorithm])
        except InvalidSignatureError:
            return None
        except (PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise JwtRefused(Reason.MALFORMED) from None
        return payload

    def _principal(self, token: str, key: Key, signed: bytes) -> Principal:
        payload = parse_object(signed)
        subject = check_claims(payload, self._settings, self._clock())
        digest = _digest(token)
        made = Principal(
            name=subject.name,
            way=_WAY,
            label=self._label(subject.name),
            groups=subject.groups,
            claims=MappingProxyType(payload),
            until=subject.until,
            credential=f"{_WAY}:{key.name}:{digest.hex()[:16]}",
        )
        self._cache.keep(digest, made, len(token))
        return made


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
