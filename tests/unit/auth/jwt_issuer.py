"""An issuer of JWTs, and whoever would like to be one: tokens of any shape, signed with any key."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from app.auth.jwks import JwksFile
from app.auth.jwt import JwtVerifier
from app.config.jwt import JwtSettings

NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://issuer.example/realm", "mq-gateway"
ALGORITHMS = get_default_algorithms()

_FAMILY = {"RS": "RS256", "PS": "RS256", "ES": "ES256", "Ed": "EdDSA", "HS": "HS256"}


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key for each name, made once."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ed_key(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def ed448_key(name: str) -> ed448.Ed448PrivateKey:
    return ed448.Ed448PrivateKey.generate()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwk(key: Any, algorithm: str, kid: str | None = "k1", **more: Any) -> dict[str, Any]:
    """The public half of a key, or a secret, as a JWK."""
    if isinstance(key, bytes):
        made: dict[str, Any] = {"kty": "oct", "k": b64(key)}
    else:
        made = ALGORITHMS[_FAMILY[algorithm[:2]]].to_jwk(key.public_key(), as_dict=True)
        made.pop("key_ops", None)
    return {**made, **({} if kid is None else {"kid": kid}), **more}


def document(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """A good payload with changes; a claim that is `...` is left out."""
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 600, **changes}
    return {name: value for name, value in made.items() if value is not ...}


def compact(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, algorithm: str, key: Any) -> str:
    """Any two things as a JWS; an empty signature where there is no key."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(ALGORITHMS[algorithm].sign(signed.encode(), key)) if key else ''}"


@dataclass
class Issuer:
    """Signs with one key, and has a gateway that believes it."""

    algorithm: str = "RS256"
    key: Any = field(default_factory=lambda: rsa_key("issuer"))
    kid: str | None = "k1"

    def jwk(self, **more: Any) -> dict[str, Any]:
        return jwk(self.key, self.algorithm, **{"kid": self.kid, **more})

    def header(self, **changes: Any) -> dict[str, Any]:
        made = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid or ..., **changes}
        return {name: value for name, value in made.items() if value is not ...}

    def token(self, payload: Mapping[str, Any] | bytes | None = None, **header: Any) -> str:
        return compact(self.header(**header), claims() if payload is None else payload, self.algorithm, self.key)


class Clock:
    """A time that stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def settings_for(path: Path, **changes: Any) -> JwtSettings:
    made = {"issuer": ISSUER, "audience": [AUDIENCE], "algorithms": ["RS256"], "jwks_file": path, **changes}
    return JwtSettings(**made)


def verifier(folder: Path, *keys: Mapping[str, Any], clock: Clock | None = None, **settings: Any) -> JwtVerifier:
    """A verifier that believes in these keys."""
    path = folder / "jwks.json"
    path.write_bytes(document(*keys))
    made = settings_for(path, **settings)
    return JwtVerifier(made, JwksFile(path, made), clock=clock or Clock())
