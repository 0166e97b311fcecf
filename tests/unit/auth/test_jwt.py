"""Tokens: which are taken, as whom, and what is wrong with the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.auth.jwt import JwtVerifier
from app.auth.jwt_refusal import JwtRefused, Reason
from tests.unit.auth.jwt_issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    Issuer,
    b64,
    claims,
    compact,
    ec_key,
    ed448_key,
    ed_key,
    jwk,
    rsa_key,
    verifier,
)

SECRET = bytes(range(64))
OF_ISSUER = Issuer()
FORGER = Issuer(key=rsa_key("forger"))
ES = Issuer("ES256", ec_key("issuer"))


async def reason_of(made: JwtVerifier, token: str) -> str:
    """Why it is refused; `taken` where it is not."""
    try:
        await made.verify(token)
    except JwtRefused as refused:
        return refused.reason.value
    return "taken"


@pytest.fixture
def gateway(tmp_path: Path) -> JwtVerifier:
    return verifier(tmp_path, OF_ISSUER.jwk())


# Everything below is signed with the issuer's key, so that only what the case is named after is wrong.
PAYLOADS: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "good": (claims(), "taken"),
    "audience is a list": (claims(aud=["other", AUDIENCE]), "taken"),
    "times are fractions": (claims(exp=NOW + 0.5, nbf=NOW - 0.5, iat=NOW - 1.5), "taken"),
    "not before this very moment": (claims(nbf=NOW), "taken"),
    "made by a clock that is ahead": (claims(nbf=NOW + 5, iat=NOW + 5), "taken"),
    "unknown claims": (claims(extra={"a": [1, None, 1e300]}), "taken"),
    "one group as text": (claims(groups="ops"), "taken"),
    "expired": (claims(exp=NOW - 1), "expired"),
    "expires this very moment": (claims(exp=NOW), "expired"),
    "exp is zero": (claims(exp=0), "expired"),
    "exp is negative": (claims(exp=-1), "expired"),
    "exp is hugely negative": (json.dumps(claims(exp=0)).replace("0}", "-1e400}").encode(), "expired"),
    "exp is missing": (claims(exp=...), "claims"),
    "exp is null": (claims(exp=None), "claims"),
    "exp is text": (claims(exp=str(NOW + 600)), "claims"),
    "exp is digits as text": (claims(exp="1900000000"), "claims"),
    "exp is true": (claims(exp=True), "claims"),
    "exp is a list": (claims(exp=[NOW + 600]), "claims"),
    "exp in milliseconds": (claims(exp=(NOW + 600) * 1000), "claims"),
    "exp has 4000 digits": (claims(exp=10**4000), "claims"),
    "exp has 5000 digits": (b'{"exp":1' + b"0" * 5000 + b"}", "malformed"),
    "exp is 1e400": (json.dumps(claims(exp=7)).replace(": 7", ": 1e400").encode(), "claims"),
    "exp is NaN": (json.dumps(claims(exp=float("nan"))).encode(), "malformed"),
    "exp is Infinity": (json.dumps(claims(exp=float("inf"))).encode(), "malformed"),
    "exp is given twice": (json.dumps(claims(exp=1))[:-1].encode() + b',"exp":1900000000}', "malformed"),
    "nbf in the future": (claims(nbf=NOW + 6), "not_yet_valid"),
    "nbf has 4000 digits": (claims(nbf=10**4000), "not_yet_valid"),
    "nbf is text": (claims(nbf="0"), "claims"),
    "nbf is null": (claims(nbf=None), "claims"),
    "iat in the future": (claims(iat=NOW + 6), "not_yet_valid"),
    "iat is text": (claims(iat="0"), "claims"),
    "issuer is another": (claims(iss="https://evil.example"), "issuer"),
    "issuer with a slash more": (claims(iss=ISSUER + "/"), "issuer"),
    "issuer in capitals": (claims(iss=ISSUER.upper()), "issuer"),
    "issuer is missing": (claims(iss=...), "issuer"),
    "issuer is a list": (claims(iss=[ISSUER]), "issuer"),
    "audience is another": (claims(aud="other"), "audience"),
    "audience begins with ours": (claims(aud=AUDIENCE + "-test"), "audience"),
    "audience is missing": (claims(aud=...), "audience"),
    "audience is an empty list": (claims(aud=[]), "audience"),
    "audience is null": (claims(aud=None), "audience"),
    "audience is a number": (claims(aud=1), "audience"),
    "audience is a list with a number": (claims(aud=[AUDIENCE, 1]), "audience"),
    "audience is an object": (claims(aud={AUDIENCE: True}), "audience"),
    "sub is missing": (claims(sub=...), "claims"),
    "sub is a number": (claims(sub=7), "claims"),
    "sub is null": (claims(sub=None), "claims"),
    "sub is empty": (claims(sub=""), "claims"),
    "sub is anonymous": (claims(sub="anonymous"), "claims"),
    "sub speaks the language of policies": (claims(sub="group:admins"), "claims"),
    "sub is a wildcard": (claims(sub="*"), "claims"),
    "sub has a line feed": (claims(sub="alice\nbob"), "claims"),
    "sub is too long": (claims(sub="a" * 256), "claims"),
    "groups is a number": (claims(groups=1), "claims"),
    "groups is null": (claims(groups=None), "claims"),
    "groups holds a number": (claims(groups=["a", 1]), "claims"),
    "groups is an object": (claims(groups={"a": 1}), "claims"),
    "half a surrogate pair": (claims(sub="\ud800"), "malformed"),
    "half a surrogate pair as a name": (claims(**{"\udfff": 1}), "malformed"),
    "half a surrogate pair deep within": (claims(a=[{"b": "\udc00"}]), "malformed"),
    "nested deeply": (claims(a=json.loads("[" * 200 + "]" * 200)), "malformed"),
    "nested absurdly": (b"[" * 2500 + b"]" * 2500, "malformed"),
    "payload is a list": (b"[]", "malformed"),
    "payload is a text": (b'"alice"', "malformed"),
    "payload is a number": (b"1", "malformed"),
    "payload is null": (b"null", "malformed"),
    "payload is no JSON": (b"sub=alice", "malformed"),
    "payload is not UTF-8": (b'{"sub":"\xff"}', "malformed"),
    "payload is UTF-16": (json.dumps(claims()).encode("utf-16"), "malformed"),
    "payload goes on": (json.dumps(claims()).encode() + b"{}", "malformed"),
}


@pytest.mark.parametrize(("payload", "reason"), PAYLOADS.values(), ids=PAYLOADS)
async def test_claims(gateway: JwtVerifier, payload: dict[str, Any] | bytes, reason: str) -> None:
    assert await reason_of(gateway, OF_ISSUER.token(payload)) == reason


def _none(spelling: str) -> str:
    return compact(OF_ISSUER.header(alg=spelling), claims(), "RS256", None)


_FORGED_JWK = FORGER.jwk(kid="forger")
_GOOD = OF_ISSUER.token()
_HEAD, _PAYLOAD, _SIGNATURE = _GOOD.split(".")

# The payload is good in all of them.
TOKENS: dict[str, tuple[str, str]] = {
    "typ at+jwt": (OF_ISSUER.token(typ="at+jwt"), "taken"),
    "typ application/JWT": (OF_ISSUER.token(typ="application/JWT"), "taken"),
    "no typ": (OF_ISSUER.token(typ=...), "taken"),
    "no kid": (OF_ISSUER.token(kid=...), "taken"),
    "a logout token": (OF_ISSUER.token(typ="logout+jwt"), "kind"),
    "typ is a number": (OF_ISSUER.token(typ=1), "malformed"),
    "forged": (FORGER.token(), "signature"),
    "forged without kid": (FORGER.token(kid=...), "signature"),
    "signature of another token": (f"{_HEAD}.{b64(json.dumps(claims(sub='root')).encode())}.{_SIGNATURE}", "signature"),
    "signature is empty": (f"{_HEAD}.{_PAYLOAD}.", "signature"),
    "signature is short": (f"{_HEAD}.{_PAYLOAD}.{b64(b'1')}", "signature"),
    "signature is long": (f"{_HEAD}.{_PAYLOAD}.{b64(bytes(2000))}", "signature"),
    "alg none": (_none("none"), "algorithm"),
    "alg None": (_none("None"), "algorithm"),
    "alg nOnE": (_none("nOnE"), "algorithm"),
    "alg NONE with a signature": (f"{_none('NONE')}{_SIGNATURE}", "algorithm"),
    "alg is empty": (_none(""), "algorithm"),
    "alg is missing": (OF_ISSUER.token(alg=...), "malformed"),
    "alg is null": (OF_ISSUER.token(alg=None), "malformed"),
    "alg is a list": (OF_ISSUER.token(alg=["RS256"]), "malformed"),
    "alg in small letters": (OF_ISSUER.token(alg="rs256"), "algorithm"),
    "alg PS256 where RS256 is allowed": (Issuer("PS256").token(), "algorithm"),
    "alg RS512 where RS256 is allowed": (Issuer("RS512").token(), "algorithm"),
    "kid is unknown": (OF_ISSUER.token(kid="other"), "unknown_key"),
    "kid is empty": (OF_ISSUER.token(kid=""), "unknown_key"),
    "kid is a path": (OF_ISSUER.token(kid="../../../../dev/null"), "unknown_key"),
    "kid is a file": (OF_ISSUER.token(kid="file:///etc/passwd"), "unknown_key"),
    "kid is SQL": (OF_ISSUER.token(kid="k1' UNION SELECT 'x"), "unknown_key"),
    "kid goes on after a NUL": (OF_ISSUER.token(kid="k1\0"), "unknown_key"),
    "kid is half a surrogate pair": (OF_ISSUER.token(kid="\ud800"), "malformed"),
    "kid is a number": (OF_ISSUER.token(kid=1), "malformed"),
    "kid is a list": (OF_ISSUER.token(kid=["k1"]), "malformed"),
    "kid is null": (OF_ISSUER.token(kid=None), "malformed"),
    "crit": (OF_ISSUER.token(crit=["exp"], exp=1), "malformed"),
    "crit is empty": (OF_ISSUER.token(crit=[]), "malformed"),
    "crit names b64": (OF_ISSUER.token(crit=["b64"], b64=True), "malformed"),
    "b64 is false": (OF_ISSUER.token(b64=False), "malformed"),
    "b64 is false and critical": (OF_ISSUER.token(crit=["b64"], b64=False), "malformed"),
    "jwk of the forger": (FORGER.token(jwk=_FORGED_JWK), "signature"),
    "jwk of the forger and its kid": (FORGER.token(jwk=_FORGED_JWK, kid="forger"), "unknown_key"),
    "jku of the forger": (FORGER.token(jku="http://127.0.0.1:1/jwks.json"), "signature"),
    "x5u of the forger": (FORGER.token(x5u="http://127.0.0.1:1/cert.pem"), "signature"),
    "x5c of the forger": (FORGER.token(x5c=["MIIB"]), "signature"),
    "header is given twice": (
        compact(b'{"alg":"none","alg":"RS256","kid":"k1"}', claims(), "RS256", OF_ISSUER.key),
        "malformed",
    ),
    "header is a list": (compact(b"[]", claims(), "RS256", OF_ISSUER.key), "malformed"),
    "header is no JSON": (compact(b"RS256", claims(), "RS256", OF_ISSUER.key), "malformed"),
    "header is nested absurdly": (compact(b"[" * 3000, claims(), "RS256", OF_ISSUER.key), "malformed"),
    "empty": ("", "malformed"),
    "no dots": ("abc", "malformed"),
    "two dots only": ("..", "malformed"),
    "one dot": (f"{_HEAD}.{_PAYLOAD}", "malformed"),
    "three dots": (f"{_GOOD}.", "malformed"),
    "five parts, as encrypted ones have": (f"{_HEAD}.a.b.c.d", "malformed"),
    "garbage": ("%%%.***.!!!", "malformed"),
    "padding": (f"{_HEAD}==.{_PAYLOAD}.{_SIGNATURE}", "malformed"),
    "padding of the signature": (f"{_GOOD}==", "malformed"),
    "plain base64": (f"{_HEAD}.{_PAYLOAD}.+/+/", "malformed"),
    "a header that cannot be decoded": (f"a.{_PAYLOAD}.{_SIGNATURE}", "malformed"),
    "a signature that cannot be decoded": (f"{_HEAD}.{_PAYLOAD}.a", "malformed"),
    "bits that encoding leaves empty": (
        f"{_HEAD}.{_PAYLOAD}.{_SIGNATURE[:-1]}{chr(ord(_SIGNATURE[-1]) + 1)}",
        "malformed",
    ),
    "white space before": (f" {_GOOD}", "malformed"),
    "line feed after": (f"{_GOOD}\n", "malformed"),
    "no ASCII": (f"{_GOOD}é", "malformed"),
    "half a surrogate pair in the text": (f"{_GOOD}\ud800", "malformed"),
    "too long": (OF_ISSUER.token(claims(a="x" * 8192)), "too_long"),
    "too long and nothing": ("." * 8193, "too_long"),
}


@pytest.mark.parametrize(("token", "reason"), TOKENS.values(), ids=TOKENS)
async def test_tokens(gateway: JwtVerifier, token: str, reason: str) -> None:
    assert await reason_of(gateway, token) == reason


def _public(encoding: serialization.Encoding) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return OF_ISSUER.key.public_key().public_bytes(encoding, form)  # type: ignore[no-any-return]


def _hmac(secret: bytes) -> str:
    """HS256 by hand: the library would refuse to sign with these."""
    signed = f"{b64(json.dumps(OF_ISSUER.header(alg='HS256')).encode())}.{b64(json.dumps(claims()).encode())}"
    inner = hashlib.sha256()
    block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    inner.update(bytes(byte ^ 0x36 for byte in block) + signed.encode())
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner.digest())
    return f"{signed}.{b64(outer.digest())}"


PUBLIC_AS_SECRET: dict[str, bytes] = {
    "PEM": _public(serialization.Encoding.PEM),
    "PEM without its last line feed": _public(serialization.Encoding.PEM).rstrip(),
    "DER": _public(serialization.Encoding.DER),
    "JWK": json.dumps(OF_ISSUER.jwk()).encode(),
    "the modulus": OF_ISSUER.jwk()["n"].encode(),
}


@pytest.mark.parametrize("secret", PUBLIC_AS_SECRET.values(), ids=PUBLIC_AS_SECRET)
async def test_a_public_key_is_no_secret(tmp_path: Path, secret: bytes) -> None:
    token = _hmac(secret)
    assert await reason_of(verifier(tmp_path, OF_ISSUER.jwk()), token) == "algorithm"
    # Also where secrets are allowed, and the public key lies beside them.
    mixed = verifier(tmp_path, OF_ISSUER.jwk(), jwk(SECRET, "HS256", "other"), algorithms=["HS256"])
    assert await reason_of(mixed, token) == "unknown_key"
    named = verifier(tmp_path, OF_ISSUER.jwk(), jwk(SECRET, "HS256", "k1"), algorithms=["HS256"])
    assert await reason_of(named, token) == "signature"


async def test_the_hmac_by_hand_is_one(tmp_path: Path) -> None:
    made = verifier(tmp_path, jwk(SECRET, "HS256"), algorithms=["HS256"])
    assert await reason_of(made, _hmac(SECRET)) == "taken"


SIGNERS: dict[str, Issuer] = {
    **{name: Issuer(name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": ES,
    "ES384": Issuer("ES384", ec_key("issuer", ec.SECP384R1)),
    "ES512": Issuer("ES512", ec_key("issuer", ec.SECP521R1)),
    "Ed25519": Issuer("EdDSA", ed_key("issuer")),
    "Ed448": Issuer("EdDSA", ed448_key("issuer")),
    **{name: Issuer(name, SECRET) for name in ("HS256", "HS384", "HS512")},
}


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)
async def test_each_algorithm(tmp_path: Path, signer: Issuer) -> None:
    made = verifier(tmp_path, signer.jwk(), algorithms=[signer.algorithm])
    assert (await made.verify(signer.token())).name == "alice"
    head, _payload, signature = signer.token().split(".")
    other = b64(json.dumps(claims(sub="root")).encode())
    assert await reason_of(made, f"{head}.{other}.{signature}") == "signature"


_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ECDSA: dict[str, tuple[int, int]] = {
    "r and s are zero": (0, 0),
    "r is zero": (0, 1),
    "s is zero": (1, 0),
    "r and s are the order": (_N, _N),
    "s is the order": (1, _N),
    "r and s are as large as they fit": (2**256 - 1, 2**256 - 1),
}


@pytest.mark.parametrize(("r", "s"), ECDSA.values(), ids=ECDSA)
async def test_no_point_signs_everything(tmp_path: Path, r: int, s: int) -> None:
    signed = ES.token().rpartition(".")[0]
    made = verifier(tmp_path, ES.jwk(), algorithms=["ES256"])
    assert await reason_of(made, f"{signed}.{b64(r.to_bytes(32) + s.to_bytes(32))}") == "signature"


async def test_an_ecdsa_signature_in_der_is_none(tmp_path: Path) -> None:
    signed = ES.token().rpartition(".")[0]
    raw = ES.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    assert await reason_of(verifier(tmp_path, ES.jwk(), algorithms=["ES256"]), f"{signed}.{b64(raw)}") == "signature"


async def test_a_key_serves_only_its_own_algorithm(tmp_path: Path) -> None:
    both = ["RS256", "PS256"]
    named = verifier(tmp_path, OF_ISSUER.jwk(alg="RS256"), algorithms=both)
    assert await reason_of(named, OF_ISSUER.token()) == "taken"
    assert await reason_of(named, Issuer("PS256").token()) == "algorithm"
    assert await reason_of(verifier(tmp_path, OF_ISSUER.jwk(), algorithms=both), Issuer("PS256").token()) == "taken"


async def test_a_key_of_another_kind_is_not_tried(tmp_path: Path) -> None:
    made = verifier(tmp_path, OF_ISSUER.jwk(), ES.jwk(kid="e1"), algorithms=["RS256", "ES256"])
    assert await reason_of(made, ES.token(kid="k1")) == "algorithm"
    assert await reason_of(made, ES.token(kid="e1")) == "taken"


@pytest.mark.parametrize(("keys", "reason"), [(4, "taken"), (5, "unknown_key")])
async def test_few_keys_are_tried_for_a_token_without_kid(tmp_path: Path, keys: int, reason: str) -> None:
    others = [Issuer("EdDSA", ed_key(f"other {number}")).jwk(kid=f"o{number}") for number in range(keys - 1)]
    last = Issuer("EdDSA", ed_key("issuer"), kid=None)
    made = verifier(tmp_path, *others, last.jwk(), algorithms=["EdDSA"])
    assert await reason_of(made, last.token()) == reason


async def test_two_keys_of_one_name_are_both_tried(tmp_path: Path) -> None:
    made = verifier(tmp_path, FORGER.jwk(), OF_ISSUER.jwk())
    assert await reason_of(made, OF_ISSUER.token()) == "taken"


LEEWAY: dict[str, tuple[dict[str, Any], str]] = {
    "expired within it": (claims(exp=NOW - 29), "taken"),
    "expired at its end": (claims(exp=NOW - 30), "expired"),
    "begins within it": (claims(nbf=NOW + 30, iat=NOW + 30), "taken"),
    "begins after it": (claims(nbf=NOW + 31), "not_yet_valid"),
    "made after it": (claims(iat=NOW + 31), "not_yet_valid"),
}


async def test_leeway_does_not_lead_out_of_time(tmp_path: Path) -> None:
    made = verifier(tmp_path, OF_ISSUER.jwk(), leeway=300)
    never = 253_402_300_799
    assert (await made.verify(OF_ISSUER.token(claims(exp=never)))).until == never


@pytest.mark.parametrize(("payload", "reason"), LEEWAY.values(), ids=LEEWAY)
async def test_leeway(tmp_path: Path, payload: dict[str, Any], reason: str) -> None:
    assert await reason_of(verifier(tmp_path, OF_ISSUER.jwk(), leeway=30), OF_ISSUER.token(payload)) == reason


async def test_who_it_is(tmp_path: Path) -> None:
    payload = claims(name="Alice", roles=["ops", "dev", "ops"], sub="a1", site={"vo": "lhcb"})
    made = verifier(tmp_path, OF_ISSUER.jwk(), principal_claim="name", groups_claim="roles", leeway=5)
    token = OF_ISSUER.token(payload)
    found = await made.verify(token)
    assert (found.name, found.way, found.groups, found.until) == ("Alice", "jwt", frozenset({"ops", "dev"}), NOW + 605)
    assert dict(found.claims) == payload
    with pytest.raises(TypeError):
        found.claims["sub"] = "root"  # type: ignore[index]
    way, key, digest = found.credential.split(":")
    assert (way, digest) == ("jwt", hashlib.sha256(token.encode()).hexdigest()[:16])
    assert key
    assert token not in repr(found)


@pytest.mark.parametrize("payload", [claims(name=...), claims(name=["Alice"])], ids=["missing", "a list"])
async def test_the_claim_that_names_the_principal(tmp_path: Path, payload: dict[str, Any]) -> None:
    made = verifier(tmp_path, OF_ISSUER.jwk(), principal_claim="name")
    assert await reason_of(made, OF_ISSUER.token(payload)) == "claims"


@pytest.mark.parametrize("make", [OF_ISSUER.token, FORGER.token], ids=["taken", "refused"])
async def test_nothing_of_a_token_is_in_an_error(gateway: JwtVerifier, make: Callable[[], str]) -> None:
    token = make()[:-8]
    with pytest.raises(JwtRefused) as refused:
        await gateway.verify(token)
    assert str(refused.value) in set(Reason)
    assert refused.value.__cause__ is None
