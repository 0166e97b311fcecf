"""A JSON Web Key (RFC 7517): what it may verify, and why some are not used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

#: Bits of an RSA modulus, at least (RFC 7518 section 3.3) and at most, and of its exponent: the cost of a verification.
MIN_RSA, MAX_RSA, MAX_EXPONENT = 2048, 8192, 64
#: Bytes of a secret, at least: those of the digest (RFC 7518 section 3.2).
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
#: Characters of a key's name.
MAX_KID = 255

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: What a key of a kind and curve can verify (RFC 7518 section 3.1, RFC 8037 section 3.1).
_FITTING: dict[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
    ("oct", ""): tuple(_SECRET_BYTES),
}
#: The members a key consists of. Nothing else of a JWK is handed to the library.
_MATERIAL = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class UnusableKey(ValueError):
    """This one is left out; the text says why, and nothing of the key."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One key. `name` tells it from every other, also from itself with another `kid` or for other algorithms."""

    name: str
    kid: str | None
    #: The key as the library has it for each algorithm: bound to it, whatever a token says.
    by_algorithm: Mapping[str, PyJWK] = field(repr=False)


def parse_key(jwk: object, allowed: Iterable[str]) -> Key:
    """The key as far as it serves algorithms that are allowed; raises UnusableKey where it serves none."""
    if not isinstance(jwk, dict):
        raise UnusableKey("it is no JSON object")
    kid = jwk.get("kid")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID)):
        raise UnusableKey(f"its kid is no text of at most {MAX_KID} characters")
    _check_use(jwk)
    material = _material(jwk)
    algorithms = [name for name in _algorithms(jwk, material) if name in set(allowed)]
    if not algorithms:
        raise UnusableKey("none of the algorithms that are allowed is for it")
    by_algorithm = {name: _load(material, name) for name in algorithms}
    return Key(_name(material, kid, algorithms), kid, by_algorithm)


def _check_use(jwk: dict[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.3: a key for something else verifies nothing."""
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("verify is not among its key_ops")
    if jwk.get("kty") != "oct" and "d" in jwk:
        # Whoever has read it can sign, and so can whoever reads it next.
        raise UnusableKey("it is a private key")


def _material(jwk: dict[str, Any]) -> dict[str, str]:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _MATERIAL:
        raise UnusableKey("its kty is not known")
    parts = {member: jwk.get(member) for member in _MATERIAL[kind]}
    texts = {member: value for member, value in parts.items() if isinstance(value, str)}
    missing = [member for member in parts if not _BASE64URL.fullmatch(texts.get(member, ""))]
    if missing:
        raise UnusableKey(f"its {missing[0]} is missing or not base64url")
    return {"kty": kind, **texts}


def _algorithms(jwk: dict[str, Any], material: dict[str, str]) -> list[str]:
    """What its kind can verify; only its own algorithm where it names one (RFC 7517 section 4.4)."""
    fitting = _FITTING.get((material["kty"], material.get("crv", "")), ())
    own = jwk.get("alg")
    if material["kty"] == "oct":
        size = len(material["k"]) * 3 // 4
        fitting = tuple(name for name in fitting if _SECRET_BYTES[name] <= size)
    return [name for name in fitting if own is None or own == name]


def _load(material: dict[str, str], algorithm: str) -> PyJWK:
    try:
        loaded = PyJWK(material, algorithm)
        # A secret that is a public key is refused here and not with the first token.
        loaded.Algorithm.prepare_key(loaded.key)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, OverflowError, RecursionError):
        # The library's texts hold the key.
        raise UnusableKey("it cannot be loaded") from None
    if isinstance(loaded.key, RSAPublicKey):
        _check_rsa(loaded.key)
    return loaded


def _check_rsa(key: RSAPublicKey) -> None:
    if not MIN_RSA <= key.key_size <= MAX_RSA:
        raise UnusableKey(f"it has {key.key_size} bits, and RSA keys have {MIN_RSA} to {MAX_RSA}")
    if key.public_numbers().e.bit_length() > MAX_EXPONENT:
        raise UnusableKey(f"its exponent has more than {MAX_EXPONENT} bits")


def _name(material: dict[str, str], kid: str | None, algorithms: list[str]) -> str:
    """A thumbprint as of RFC 7638, over how it is used as well."""
    text = json.dumps([material, kid, algorithms], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"mq-gateway jwk " + text.encode()).hexdigest()[:24]
