"""Settings of how JSON Web Tokens (RFC 7519) are verified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.config.section import Section, TextList

#: What is signed with a private key (RFC 7518 section 3.1, RFC 8037), and what with a shared one. `none` is neither.
ASYMMETRIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})


class JwtSettings(Section):
    """Which JWTs are taken: exactly those of one issuer, for one audience, signed with one of its keys."""

    issuer: Annotated[str, Field(min_length=1)]
    """The `iss` that a token must have, letter for letter."""

    audience: Annotated[TextList, Field(min_length=1)]
    """The `aud` that a token must have; one of several, where several are given."""

    algorithms: Annotated[TextList, Field(min_length=1)] = Field(default_factory=lambda: ["RS256"])
    """Signatures that are taken. `none` never; HS256 and the like only without the others and with `jwks_file`."""

    jwks_url: str | None = None
    """Where the issuer publishes its keys (JWK Set, RFC 7517); https, or http on a loopback address. Fetched in the
    background, again when a token names a key that is not there, and at least every `jwks_refresh` seconds."""

    jwks_file: Path | None = None
    """File with the keys instead; read again when it changes."""

    jwks_refresh: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """Seconds after which the keys at `jwks_url` are fetched again: no key that is withdrawn is good for longer."""

    jwks_max_age: Annotated[float, Field(ge=1, le=7 * 86_400)] = 86_400.0
    """Seconds for which keys are used while `jwks_url` cannot be reached."""

    principal_claim: Annotated[str, Field(min_length=1)] = "sub"
    """The claim that names the principal."""

    groups_claim: Annotated[str, Field(min_length=1)] = "groups"
    """The claim that lists its groups: an array of texts, or one text."""

    leeway: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Seconds by which the issuer's clock may differ. A token is taken 5 s before it begins in any case."""

    @field_validator("algorithms")
    @classmethod
    def _allowed(cls, value: list[str]) -> list[str]:
        unknown = [name for name in value if name not in ASYMMETRIC | SYMMETRIC]
        if unknown:
            known = ", ".join(sorted(ASYMMETRIC | SYMMETRIC))
            raise ValueError(f"{unknown[0]!r} is not an algorithm that is taken; they are {known}")
        if set(value) & SYMMETRIC and set(value) & ASYMMETRIC:
            # A public key must never be taken for the secret of an HMAC (RFC 8725 section 2.1).
            raise ValueError("HMAC and public-key algorithms do not go together")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _secure(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        local = url.hostname in {"localhost", "127.0.0.1", "::1"}
        if not url.hostname or url.username or url.scheme not in ("https", "http"):
            raise ValueError("must be an https URL without user information")
        if url.scheme == "http" and not local:
            raise ValueError("must begin with https://: whoever changes the keys on their way signs in as anybody")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_url is None) is (self.jwks_file is None):
            raise PydanticCustomError("jwks", "give either jwks_url or jwks_file")
        if self.jwks_url is not None and set(self.algorithms) & SYMMETRIC:
            raise PydanticCustomError("jwks", "the keys of HMAC algorithms are secret: they come from jwks_file only")
        return self
