"""JWK Sets: which keys are used, and why others are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import get_default_algorithms

from app.auth.jwk_set import MAX_DOCUMENT, TooLarge, UnusableSet, parse_set
from tests.unit.auth.jwt_issuer import b64, document, ec_key, ed_key, jwk, rsa_key

ALL = ["RS256", "PS256", "ES256", "EdDSA", "HS256", "HS512"]
GOOD = jwk(ed_key("good"), "EdDSA", "good")
RSA = jwk(rsa_key("issuer"), "RS256")
EC = jwk(ec_key("issuer"), "ES256")
SECRET = "c2VjcmV0"


def _pem_as_secret() -> dict[str, Any]:
    return jwk(b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 64 + b"\n-----END PUBLIC KEY-----\n", "HS256")


def _number(bits: int) -> str:
    return b64((1 << (bits - 1) | 1).to_bytes((bits + 7) // 8))


LEFT_OUT: dict[str, tuple[Any, str]] = {
    "RSA of 1024 bits": (jwk(rsa_key("short", 1024), "RS256"), "1024 bits"),
    "RSA of 2047 bits": ({**RSA, "n": _number(2047)}, "2047 bits"),
    "RSA of 16384 bits": ({**RSA, "n": _number(16384)}, "16384 bits"),
    "RSA with a large exponent": ({**RSA, "e": _number(65)}, "exponent"),
    "RSA with the exponent 1": ({**RSA, "e": "AQ"}, "cannot be loaded"),
    "RSA for encryption": ({**RSA, "use": "enc"}, "use"),
    "RSA with a use that is no text": ({**RSA, "use": ["sig"]}, "use"),
    "RSA for signing only": ({**RSA, "key_ops": ["sign"]}, "key_ops"),
    "RSA with key_ops that is no list": ({**RSA, "key_ops": "verify"}, "key_ops"),
    "RSA for an algorithm that is not allowed": ({**RSA, "alg": "RS512"}, "algorithms"),
    "RSA for an algorithm of other keys": ({**RSA, "alg": "HS256"}, "algorithms"),
    "RSA with an alg that is no text": ({**RSA, "alg": ["RS256"]}, "algorithms"),
    "RSA with its private half": ({**RSA, "d": SECRET}, "private"),
    "RSA without modulus": ({**RSA, "n": ...}, "its n"),
    "RSA with a modulus that is a number": ({**RSA, "n": 7}, "its n"),
    "RSA with a modulus that is no base64url": ({**RSA, "n": RSA["n"] + "=="}, "its n"),
    "EC of a curve that is not allowed": (jwk(ec_key("large", ec.SECP384R1), "ES256"), "algorithms"),
    "EC of Bitcoin's curve": (jwk(ec_key("coin", ec.SECP256K1), "ES256"), "algorithms"),
    "EC off the curve": ({**EC, "x": EC["y"]}, "cannot be loaded"),
    "EC with a short coordinate": ({**EC, "x": EC["x"][:-2]}, "cannot be loaded"),
    "EC without curve": ({**EC, "crv": ...}, "its crv"),
    "EC with its private half": ({**EC, "d": SECRET}, "private"),
    "OKP for exchanging keys": ({**GOOD, "crv": "X25519"}, "algorithms"),
    "OKP too short": ({**GOOD, "x": "AAAA"}, "cannot be loaded"),
    "a short secret": (jwk(b"s" * 31, "HS256"), "algorithms"),
    "an empty secret": (jwk(b"", "HS256"), "its k"),
    "a PEM as secret": (_pem_as_secret(), "cannot be loaded"),
    "a JWK as secret": (jwk(json.dumps(EC).encode(), "HS256"), "cannot be loaded"),
    "kty unknown": ({**RSA, "kty": "rsa"}, "kty"),
    "kty missing": ({**RSA, "kty": ...}, "kty"),
    "kty a list": ({**RSA, "kty": ["RSA"]}, "kty"),
    "kid a number": ({**RSA, "kid": 1}, "kid"),
    "kid too long": ({**RSA, "kid": "k" * 256}, "kid"),
    "a text": ("key", "no JSON object"),
    "null": (None, "no JSON object"),
}


@pytest.mark.parametrize(("key", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_one_is_left_out_and_the_others_stay(key: Any, why: str) -> None:
    if isinstance(key, dict):
        key = {name: value for name, value in key.items() if value is not ...}
    found = parse_set(document(key, GOOD), ALL)
    assert [one.kid for one in found.keys] == ["good"]
    (sentence,) = found.left_out
    assert sentence.startswith("key 1")
    assert why in sentence
    for secret in (key.get("k"), key.get("n"), key.get("d")) if isinstance(key, dict) else ():
        assert not secret or str(secret) not in sentence


SERVES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "RSA": (RSA, {"RS256", "PS256"}),
    "RSA that names its algorithm": ({**RSA, "alg": "PS256"}, {"PS256"}),
    "RSA for signatures": ({**RSA, "use": "sig", "key_ops": ["verify"]}, {"RS256", "PS256"}),
    "EC": (EC, {"ES256"}),
    "OKP": (GOOD, {"EdDSA"}),
    "a secret of 32 bytes": (jwk(b"s" * 32, "HS256"), {"HS256"}),
    "a secret of 64 bytes": (jwk(b"s" * 64, "HS512"), {"HS256", "HS512"}),
    "members that nobody knows": ({**EC, "x5c": ["MIIB"], "exp": 1}, {"ES256"}),
}


@pytest.mark.parametrize(("key", "algorithms"), SERVES.values(), ids=SERVES)
def test_what_a_key_serves(key: dict[str, Any], algorithms: set[str]) -> None:
    (one,) = parse_set(document(key), ALL).keys
    assert set(one.by_algorithm) == algorithms
    assert str(key.get("k", "nothing")) not in repr(one)


NO_SET: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "HTML": (b"<html>sign in</html>", "not JSON"),
    "not UTF-8": (b'{"keys": ["\xff"]}', "not JSON"),
    "nested absurdly": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "no JWK Set"),
    "a key": (json.dumps(RSA).encode(), "no JWK Set"),
    "keys is an object": (b'{"keys": {}}', "no JWK Set"),
    "no keys": (document(), "no key that can be used"),
    "no key that can be used": (document({**RSA, "use": "enc"}), "its use is not sig"),
}


@pytest.mark.parametrize(("text", "why"), NO_SET.values(), ids=NO_SET)
def test_no_set(text: bytes, why: str) -> None:
    with pytest.raises(UnusableSet, match=why):
        parse_set(text, ALL)


def test_as_many_keys_as_are_allowed() -> None:
    keys = [{**GOOD, "kid": str(number)} for number in range(65)]
    assert len(parse_set(document(*keys[:64]), ALL).keys) == 64
    with pytest.raises(TooLarge, match="64 keys"):
        parse_set(document(*keys), ALL)


def test_as_many_bytes_as_are_allowed() -> None:
    text = document(GOOD)
    assert parse_set(text.ljust(MAX_DOCUMENT), ALL).keys
    with pytest.raises(TooLarge, match="bytes"):
        parse_set(text.ljust(MAX_DOCUMENT + 1), ALL)


def test_the_same_key_twice_is_one() -> None:
    assert len(parse_set(document(GOOD, GOOD, {**GOOD, "kid": "other"}), ALL).keys) == 2


def test_only_the_algorithms_that_are_allowed() -> None:
    assert [one.kid for one in parse_set(document(GOOD, EC), ["EdDSA"]).keys] == ["good"]


def test_the_library_knows_all_algorithms_there_are_keys_for() -> None:
    assert set(ALL) <= set(get_default_algorithms())
