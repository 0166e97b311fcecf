"""Credentials that somebody made up, bent or stole a half of: never 200, never 500, and never in the log."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth.token_file import hash_of, new_token
from tests.e2e.guarded import Guarded, Headers, bearer, fresh, guarded
from tests.e2e.http_client import Answer, Http, Sse, ask
from tests.e2e.live_gateway import MEMORY
from tests.unit.auth.jwt_issuer import Issuer, b64, compact, ec_key, ed_key, jwk, rsa_key

ELLIPTIC, SHARED = Issuer("ES256", ec_key("issuer"), "e1"), b"s" * 32
STRANGER = Issuer(key=rsa_key("stranger"))

OPERATIONS = {
    "publish": ("POST", "/mq/mem/Queues/open.q"),
    "subscribe": ("GET", "/mq/mem/Topics/open.t/events"),
    "receive": ("POST", "/mq/mem/Queues/open.q/receive"),
    "look": ("GET", "/mq/mem/Queues/open.q"),
}
POLICY: list[dict[str, Any]] = [
    {"principals": ["*"], "allow": ["publish", "subscribe", "take", "look"], "uris": ["mem::*::open.*"]},
    {"principals": ["alice"], "allow": ["publish"], "uris": ["mem::Queues::alice.*"]},
    {"principals": ["token:robot"], "allow": ["publish"], "uris": ["mem::Queues::robot.*"]},
    {"principals": ["jwt:carol"], "allow": ["publish"], "uris": ["mem::Queues::carol.*"]},
    {"principals": ["group:admin"], "allow": ["publish"], "uris": ["mem::Queues::admin.*"]},
    {"principals": ["*"], "allow": ["publish"], "uris": ["mem::Queues::own.{principal}.*"]},
    {"principals": ["anonymous"], "allow": ["publish"], "uris": ["mem::Queues::nobody"]},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Keys: two of RSA, one of an elliptic curve, and one that is no public key."""
    other = jwk(rsa_key("other"), "RS256", "k2")
    keys = [Issuer().jwk(), other, ELLIPTIC.jwk(), jwk(SHARED, "HS256", "shared")]
    folder = tmp_path_factory.mktemp("tokens")
    with guarded(folder, {"mem": MEMORY}, POLICY, names=("robot", "carol"), keys=keys) as found:
        yield found


async def each(site: Guarded, headers: Headers) -> dict[str, Answer]:
    """The answer to each operation; a stream is closed at once."""
    answers = {}
    for name, (method, target) in OPERATIONS.items():
        if name == "subscribe":
            stream = await Sse.open(site.port, target, headers, expect=None)
            if stream.status == 200:
                answers[name] = Answer(200, stream.headers, b"")
                stream.close()
                continue
            stream.close()
        answers[name] = await ask(site.port, method, target, b"" if method == "POST" else None, headers)
    return answers


def refused(answer: Answer, secret: str = "") -> None:
    """Unknown: a problem that says how to sign in, and nothing of what was shown."""
    assert (answer.status, answer.code) == (401, "unauthenticated"), answer
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not secret or secret.encode() not in answer.body


# What is good.


def _upper(token: str) -> Headers:
    return {"authorization": f"BEARER   {token} "}


GOOD: dict[str, Callable[[Guarded], Headers]] = {
    "api token": lambda site: site.as_("robot"),
    "api token, scheme in capitals": lambda site: _upper(site.tokens["robot"]),
    "jwt RS256": lambda site: bearer(site.issuer.token(fresh())),
    "jwt ES256": lambda site: bearer(ELLIPTIC.token(fresh())),
    "jwt without kid": lambda site: bearer(site.issuer.token(fresh(), kid=...)),
    "jwt for several audiences": lambda site: bearer(site.issuer.token(fresh(aud=["other", "mq-gateway"]))),
    "jwt as an access token": lambda site: bearer(site.issuer.token(fresh(), typ="at+JWT")),
}


@pytest.mark.parametrize("name", GOOD)
async def test_what_is_good_may(site: Guarded, name: str) -> None:
    answers = await each(site, GOOD[name](site))
    assert {answer.status for answer in answers.values()} <= {200, 204}, answers


# Somebody made it up.


def _public(form: Encoding) -> bytes:
    return rsa_key("issuer").public_key().public_bytes(form, PublicFormat.SubjectPublicKeyInfo)


def _hmac(key: bytes, kid: Any = "k1", algorithm: str = "HS256", **header: Any) -> str:
    return compact(Issuer().header(alg=algorithm, kid=kid, **header), fresh(), algorithm, key)


def _unsigned(algorithm: Any, signature: str = "", payload: Any = None) -> str:
    head = {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    parts = (b64(json.dumps(part).encode()) for part in (head, payload or fresh()))
    return f"{'.'.join(parts)}.{signature}"


def _numbers() -> bytes:
    modulus = rsa_key("issuer").public_key().public_numbers().n
    return modulus.to_bytes((modulus.bit_length() + 7) // 8)


def _with_payload(token: str, **changes: Any) -> str:
    """Another payload under the signature of this one."""
    head, _, signature = token.split(".")
    return ".".join((head, b64(json.dumps(fresh(**changes)).encode()), signature))


def _strange(kid: Any) -> str:
    return STRANGER.token(fresh(), kid=kid)


def _good() -> str:
    return Issuer().token(fresh())


FORGED: dict[str, Callable[[], str]] = {
    "signature of a stranger's key": lambda: STRANGER.token(fresh()),
    "signature of nothing": lambda: _good().rpartition(".")[0] + ".",
    "signature of zeros": lambda: _good().rpartition(".")[0] + "." + b64(bytes(256)),
    "signature of another token": lambda: _with_payload(_good(), sub="root"),
    "signature cut off": lambda: _good()[:-40],
    "signature twice": lambda: f"{_good()}{_good().rpartition('.')[2]}",
    "elliptic signature of zeros": lambda: ELLIPTIC.token(fresh()).rpartition(".")[0] + "." + b64(bytes(64)),
    "elliptic signature of the order": lambda: ELLIPTIC.token(fresh()).rpartition(".")[0] + "." + b64(b"\xff" * 64),
    "another key of the issuer": lambda: Issuer(key=rsa_key("other"), kid="k1").token(fresh()),
    "kid of another key": lambda: Issuer().token(fresh(), kid="k2"),
    "kid of a key of another kind": lambda: Issuer().token(fresh(), kid="e1"),
    "elliptic with the kid of an RSA key": lambda: ELLIPTIC.token(fresh(), kid="k1"),
    "no kid, stranger": lambda: STRANGER.token(fresh(), kid=...),
    **{
        f"alg {algorithm!r}": partial(_unsigned, algorithm)
        for algorithm in ("none", "None", "NONE", "nOnE", "none ", "", "\0none", None, 0, [], ["none"], {"a": "none"})
    },
    "alg none with a signature": lambda: _unsigned("none", _good().rpartition(".")[2]),
    "alg RS256 without a signature": lambda: _unsigned("RS256"),
    "alg rs256": lambda: _unsigned("rs256", _good().rpartition(".")[2]),
    "alg HS256 with the public key as PEM": lambda: _hmac(_public(Encoding.PEM)),
    "alg HS256 with the public key as PEM, stripped": lambda: _hmac(_public(Encoding.PEM).strip()),
    "alg HS256 with the public key as DER": lambda: _hmac(_public(Encoding.DER)),
    "alg HS256 with the public key as JWK": lambda: _hmac(json.dumps(Issuer().jwk()).encode()),
    "alg HS256 with the modulus": lambda: _hmac(_numbers()),
    "alg HS512 with the public key as PEM": lambda: _hmac(_public(Encoding.PEM), algorithm="HS512"),
    "alg HS256 with the public key, no kid": lambda: _hmac(_public(Encoding.PEM), kid=...),
    "alg HS256 with a shared key of the set": lambda: _hmac(SHARED, kid="shared"),
    "alg HS256 with an empty key": lambda: jwt.encode(fresh(), b"\0" * 32, "HS256", headers={"kid": "k1"}),
    "alg RS512": lambda: compact(Issuer().header(alg="RS512"), fresh(), "RS512", Issuer().key),
    "alg PS256": lambda: compact(Issuer().header(alg="PS256"), fresh(), "PS256", Issuer().key),
    "alg EdDSA": lambda: compact(Issuer().header(alg="EdDSA"), fresh(), "EdDSA", ed_key("x")),
    **{
        f"kid {kid!r}": partial(_strange, kid)
        for kid in (
            *("../../../dev/null", "/dev/null", "/proc/self/environ", "k1\0.pem", "jwks.json", "file:///dev/null"),
            *("x' UNION SELECT 'key", "k1' OR '1'='1", "k1; --", "$(id)", "`id`", "${jndi:ldap://127.0.0.1/a}"),
            *("http://127.0.0.1/jwks", "k1 ", "K1", "", "k" * 3000, 1, None, ["k1"], {"k1": 1}, True),
        )
    },
    "kid of null bytes with an empty HMAC key": lambda: _hmac(b"\0" * 32, kid="/dev/null"),
    "crit": lambda: Issuer().token(fresh(), crit=["exp"]),
    "crit empty": lambda: Issuer().token(fresh(), crit=[]),
    "crit b64": lambda: Issuer().token(fresh(), crit=["b64"], b64=False),
    "b64 alone": lambda: Issuer().token(fresh(), b64=True),
    "jwk of its own": lambda: STRANGER.token(fresh(), kid=..., jwk=STRANGER.jwk()),
    "jwk of its own and our kid": lambda: STRANGER.token(fresh(), jwk=STRANGER.jwk()),
    "jku": lambda: STRANGER.token(fresh(), jku="http://127.0.0.1:1/jwks.json"),
    "jku of a file": lambda: STRANGER.token(fresh(), kid="x", jku="file:///etc/passwd"),
    "x5u": lambda: STRANGER.token(fresh(), x5u="http://127.0.0.1:1/x.pem"),
    "x5c": lambda: STRANGER.token(fresh(), x5c=[base64.b64encode(_public(Encoding.DER)).decode()]),
    "x5t": lambda: STRANGER.token(fresh(), x5t="AAAA"),
    "typ of a logout token": lambda: Issuer().token(fresh(), typ="logout+jwt"),
    "typ of a number": lambda: Issuer().token(fresh(), typ=1),
    "alg twice": lambda: compact(b'{"alg":"none","alg":"RS256","kid":"k1"}', fresh(), "RS256", Issuer().key),
    "head of no JSON": lambda: compact(b"{", fresh(), "RS256", Issuer().key),
    "head of a list": lambda: compact(b"[]", fresh(), "RS256", Issuer().key),
    "head of deep lists": lambda: compact(b'{"a":' + b"[" * 2500 + b"]" * 2500 + b"}", b"{}", "RS256", Issuer().key),
    "head in UTF-16": lambda: compact('{"alg":"RS256"}'.encode("utf-16"), fresh(), "RS256", Issuer().key),
    "head padded": lambda: _good().replace(".", "=.", 1),
}

#: Of the time at which tests are collected; some run much later.
_SOON = int(time.time()) + 30 * 86_400
#: Changes of a good payload, or what makes the whole of one.
BENT: dict[str, dict[str, Any] | Callable[[], bytes]] = {
    "expired": {"exp": int(time.time()) - 1},
    "expired long ago": {"exp": 0},
    "expires before time began": {"exp": -1},
    "no exp": {"exp": ...},
    "exp null": {"exp": None},
    "exp of a text": {"exp": str(_SOON)},
    "exp true": {"exp": True},
    "exp of a list": {"exp": [_SOON]},
    "exp in milliseconds": {"exp": _SOON * 1000},
    "exp of 400 digits": {"exp": 10**400},
    "exp 1e999": lambda: json.dumps(fresh()).replace('"exp": ', '"exp": 1e999, "x": ').encode(),
    "exp Infinity": {"exp": float("inf")},
    "exp NaN": {"exp": float("nan")},
    "exp twice": lambda: json.dumps(fresh(exp=1)).encode()[:-1] + b', "exp": 9999999999}',
    "not yet valid": {"nbf": _SOON},
    "nbf of a text": {"nbf": "0"},
    "nbf NaN": {"nbf": float("nan")},
    "issued in the future": {"iat": _SOON},
    "no audience": {"aud": ...},
    "wrong audience": {"aud": "other"},
    "audience with a space": {"aud": "mq-gateway "},
    "audience in capitals": {"aud": "MQ-GATEWAY"},
    "audience begins like ours": {"aud": "mq-gateway.evil.example"},
    "audience of a prefix": {"aud": "mq"},
    "audience of others only": {"aud": ["a", "b"]},
    "audience of no texts": {"aud": ["mq-gateway", 1]},
    "audience nested": {"aud": [["mq-gateway"]]},
    "audience of an object": {"aud": {"mq-gateway": 1}},
    "audience *": {"aud": "*"},
    "no issuer": {"iss": ...},
    "wrong issuer": {"iss": "https://evil.example/realm"},
    "issuer with a slash more": {"iss": "https://issuer.example/realm/"},
    "issuer in capitals": {"iss": "HTTPS://ISSUER.EXAMPLE/realm"},
    "issuer of a list": {"iss": ["https://issuer.example/realm"]},
    "issuer with a user": {"iss": "https://issuer.example/realm@evil.example"},
    "no sub": {"sub": ...},
    **{
        f"sub {sub!r}": {"sub": sub}
        for sub in (
            *("*", "anonymous", "group:admin", "group:", "claim:vo=x", "token:robot", "jwt:carol", "certificate:x"),
            *("a::b", "::", "alice::Queues", "alice/x", "al*ce", "alice*", "", " ", " alice", "alice ", "alice\n"),
            *("alice\0", "alice\u200b", "\u202ealice", "al\u2028ice", "alice\x85", "\ufeffalice", "a" * 256),
            *(["alice"], [], None, 1, True, {"alice": 1}, 1.5),
        )
    },
    "sub of half a surrogate pair": lambda: json.dumps(fresh(sub="alice\ud800")).encode(),
    "sub twice": lambda: json.dumps(fresh(sub="robot")).encode()[:-1] + b', "sub": "alice"}',
    "groups of an object": {"groups": {"admin": True}},
    "groups of numbers": {"groups": [1]},
    "groups nested": {"groups": [["admin"]]},
    "payload of a list": lambda: b"[]",
    "payload of a text": lambda: b'"alice"',
    "payload of no JSON": lambda: b"alice",
    "payload of nothing but space": lambda: b" ",
    "payload in deep lists": lambda: json.dumps(fresh()).encode()[:-1] + b',"a":' + b"[" * 400 + b"]" * 400 + b"}",
    "payload of bytes": lambda: b"\xff\xfe\0",
}

_TOKEN = "mqg_" + "A" * 43
GARBAGE: dict[str, str] = {
    "nothing but dots": "..",
    "four parts": "a.b.c.d",
    "five parts": "a.b.c.d.e",
    "two parts": "a.b",
    "one letter": "x",
    "null": "null",
    "undefined": "undefined",
    "braces": "{}",
    "token of nobody": _TOKEN,
    "token of nobody, new": new_token(),
    "prefix alone": "mqg_",
    "asterisk": "*",
    "anonymous": "anonymous",
    "name of a principal": "robot",
    "name with its way": "token:robot",
    "percent": "%00%0a",
    "quotes": "\"' OR 1=1 --",
    "bytes above ASCII": "\xff\xfe\xe9",
    "text above ASCII": "\u0430\u0431\u0432",
    "long": "a" * 8000,
    "long with dots": ".".join(["a" * 2600] * 3),
}


def _bent(payload: dict[str, Any] | Callable[[], bytes]) -> str:
    return Issuer().token(fresh(**payload) if isinstance(payload, dict) else payload())


def _cases() -> Iterator[Any]:
    for name, forge in FORGED.items():
        yield pytest.param(forge, id=f"forged-{name[:48]}")
    for name, payload in BENT.items():
        yield pytest.param(partial(_bent, payload), id=f"bent-{name[:48]}")
    for name, text in GARBAGE.items():
        yield pytest.param(partial(str, text), id=f"garbage-{name}")


@pytest.mark.parametrize("make", list(_cases()))
async def test_what_is_made_up_may_nothing(site: Guarded, make: Callable[[], str]) -> None:
    token = make()
    for answer in (await each(site, bearer(token))).values():
        refused(answer, token if len(token) > 12 else "")
    if len(token) > 40:
        site.secrets.append(token)


# Nearly an API token.

NEARLY: dict[str, Callable[[str], str]] = {
    "its hash": hash_of,
    "its hash without the name of the algorithm": lambda token: hash_of(token).removeprefix("sha256:"),
    "first character changed": lambda token: "x" + token[1:],
    "a character changed": lambda token: token[:20] + ("a" if token[20] != "a" else "b") + token[21:],
    "last character changed": lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"),
    "last character missing": lambda token: token[:-1],
    "first half": lambda token: token[: len(token) // 2],
    "without its prefix": lambda token: token.removeprefix("mqg_"),
    "prefix twice": lambda token: "mqg_" + token,
    "a character more": lambda token: token + "a",
    "padding": lambda token: token + "=",
    "a dot more": lambda token: token + ".",
    "twice": lambda token: token + token,
    "letter case changed": str.swapcase,
    "capitals": str.upper,
    "small letters": str.lower,
    "a tab behind": lambda token: token + "\t.",
    "a space within": lambda token: token[:10] + " " + token[10:],
    "quoted": lambda token: f'"{token}"',
    "in angle brackets": lambda token: f"<{token}>",
    "scheme twice": lambda token: f"Bearer {token}",
    "a comma and a parameter": lambda token: f'{token}, realm="x"',
    "two of them": lambda token: f"{token},{token}",
    "as a name": lambda token: f"token={token}",
    "percent-encoded": lambda token: "%6d" + token[1:],
    "base64": lambda token: base64.b64encode(token.encode()).decode(),
    "no-break space before": lambda token: "\xa0" + token,
    "fullwidth": lambda token: "\uff4d" + token[1:],
    "as the payload of an unsigned jwt": lambda token: _unsigned("none", "", fresh(sub=token)),
}


@pytest.mark.parametrize("name", NEARLY)
async def test_what_is_nearly_a_token_may_nothing(site: Guarded, name: str) -> None:
    token = NEARLY[name](site.tokens["robot"])
    for answer in (await each(site, bearer(token))).values():
        refused(answer, token)


# Somewhere else, or in another way.


def _basic(name: str, secret: str) -> Headers:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


ELSEWHERE: dict[str, Callable[[str], Headers]] = {
    "nothing": lambda _: {},
    "an empty Authorization": lambda _: {"Authorization": ""},
    "Bearer without a token": lambda _: {"Authorization": "Bearer"},
    "Bearer and a space": lambda _: {"Authorization": "Bearer "},
    "Bearer and spaces": lambda _: {"Authorization": "Bearer     "},
    "no scheme": lambda token: {"Authorization": token},
    "no space": lambda token: {"Authorization": f"Bearer{token}"},
    "a tab for the space": lambda token: {"Authorization": f"Bearer\t{token}"},
    "a colon": lambda token: {"Authorization": f"Bearer: {token}"},
    "scheme Token": lambda token: {"Authorization": f"Token {token}"},
    "scheme Bearer-": lambda token: {"Authorization": f"Bearer- {token}"},
    "scheme DPoP": lambda token: {"Authorization": f"DPoP {token}"},
    "Basic as password": lambda token: _basic("robot", token),
    "Basic as user": lambda token: _basic(token, ""),
    "Basic as x-oauth": lambda token: _basic("x-access-token", token),
    "Digest": lambda token: {"Authorization": f'Digest username="robot", response="{token}"'},
    "Negotiate": lambda _: {"Authorization": "Negotiate TlRMTVNTUAABAAAA"},
    "Proxy-Authorization": lambda token: {"Proxy-Authorization": f"Bearer {token}"},
    "X-Api-Key": lambda token: {"X-Api-Key": token},
    "X-Access-Token": lambda token: {"X-Access-Token": token},
    "X-Auth-Token": lambda token: {"X-Auth-Token": token},
    "Authentication": lambda token: {"Authentication": f"Bearer {token}"},
    "X-Authorization": lambda token: {"X-Authorization": f"Bearer {token}"},
    "X-Original-Authorization": lambda token: {"X-Original-Authorization": f"Bearer {token}"},
    "with an underscore": lambda token: {"Author_ization": f"Bearer {token}"},
    "Sec-WebSocket-Protocol": lambda token: {"Sec-WebSocket-Protocol": f"bearer, {token}"},
    "cookie of another name": lambda token: {"Cookie": f"token={token}; session={token}; mq-gateway={token}"},
    "in the cookie of sessions": lambda token: {"Cookie": f"__Host-mq-gateway={token}"},
    "in the cookie of sessions, with scheme": lambda token: {"Cookie": f"__Host-mq-gateway=Bearer {token}"},
    "subject of a certificate": lambda _: {"X-SSL-Client-S-DN": "CN=robot", "X-SSL-Client-Verify": "SUCCESS"},
    "user of a proxy": lambda _: {"X-Forwarded-User": "robot", "Remote-User": "robot", "X-Remote-User": "robot"},
    "address of a proxy": lambda _: {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-Ip": "::1"},
    "another method": lambda token: {"X-Http-Method-Override": "OPTIONS", "X-Original-Url": f"/health/live?{token}"},
}


@pytest.mark.parametrize("kind", ["api token", "jwt"])
@pytest.mark.parametrize("name", ELSEWHERE)
async def test_good_credentials_in_another_place_may_nothing(site: Guarded, name: str, kind: str) -> None:
    token = site.tokens["robot"] if kind == "api token" else site.issuer.token(fresh())
    for answer in (await each(site, ELSEWHERE[name](token))).values():
        refused(answer, token)


@pytest.mark.parametrize("parameter", ["access_token", "token", "bearer", "authorization", "ticket", "session", "jwt"])
async def test_credentials_in_the_query(site: Guarded, parameter: str) -> None:
    for token in (site.tokens["robot"], site.issuer.token(fresh())):
        for method, target in OPERATIONS.values():
            answer = await ask(site.port, method, f"{target}?{parameter}={token}", b"x" if method == "POST" else None)
            refused(answer)


async def test_credentials_in_the_body(site: Guarded) -> None:
    token = site.tokens["robot"]
    for kind, body in (
        ("application/x-www-form-urlencoded", f"access_token={token}"),
        ("application/json", json.dumps({"access_token": token})),
    ):
        for name in ("publish", "receive"):
            method, target = OPERATIONS[name]
            refused(await ask(site.port, method, target, body.encode(), {"Content-Type": kind}), token)


GET = "GET /mq/mem/Queues/open.q HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BAD_HEADER = f"Authorization: Bearer {_TOKEN}\r\n"
#: `{good}` stands for a header with good credentials, `{token}` for the token in it.
RAW = {
    "good and good": GET + "{good}{good}\r\n",
    "good and bad": GET + "{good}" + BAD_HEADER + "\r\n",
    "bad and good": GET + BAD_HEADER + "{good}\r\n",
    "empty and good": GET + "Authorization:\r\n{good}\r\n",
    "good and Basic": GET + "{good}Authorization: Basic cm9ib3Q6eA==\r\n\r\n",
    "a folded line": GET + "Authorization: Bearer\r\n {token}\r\n\r\n",
    "folded behind another header": GET + "X-A: a\r\n {good}\r\n",
    "a space before the colon": GET + "Authorization : Bearer {token}\r\n\r\n",
    "a null byte": GET + "Authorization: Bearer {token}\0\r\n\r\n",
    "a null byte in the name": GET + "Authorization\0: Bearer {token}\r\n\r\n",
    "a vertical tab": GET + "Authorization: Bearer\x0b{token}\r\n\r\n",
    "a bare carriage return": GET + "X-A: a\rAuthorization: Bearer {token}\r\n\r\n",
    "in the target": GET.replace("/mq", "http://robot:{token}@127.0.0.1/mq") + "\r\n",
    "in the Host": GET.replace("Host: ", "Host: robot:{token}@") + "\r\n",
    "in a trailer": (
        "POST /mq/mem/Queues/open.q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"
        "1\r\nx\r\n0\r\n{good}\r\n"
    ),
    "in a chunk extension": (
        "POST /mq/mem/Queues/open.q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "1;{token}\r\nx\r\n0\r\n\r\n"
    ),
    "in a body of a GET": GET + "Content-Length: 99\r\n\r\n{good}" + " " * 99,
    "HTTP/1.0 without Host": "GET /mq/mem/Queues/open.q HTTP/1.0\r\n\r\n",
    "HTTP/0.9": "GET /mq/mem/Queues/open.q\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
async def test_on_the_wire(site: Guarded, name: str) -> None:
    token = site.tokens["robot"]
    request = RAW[name].replace("{good}", f"Authorization: Bearer {token}\r\n").replace("{token}", token)
    async with await Http.connect(site.port) as http:
        answer = await http.ask_raw(request.encode("latin-1"))
    assert answer.status in (400, 401), answer
    assert answer.code in ("unauthenticated", "malformed_request", "invalid_header")
    assert token.encode() not in answer.body


async def test_a_connection_is_nobody(site: Guarded) -> None:
    """Who was known in one request is unknown in the next one, and in one that waits behind it."""
    async with await Http.connect(site.port) as http:
        for _ in range(3):
            assert (await http.ask("GET", "/mq", headers=site.as_("robot"))).status == 200
            refused(await http.ask("GET", "/mq"))
    async with await Http.connect(site.port) as http:
        good = GET + f"Authorization: Bearer {site.tokens['robot']}\r\n\r\n"
        http.writer.write(f"{good}{GET}\r\n{good}".encode())
        statuses = [(await http.ask_raw(b"")).status for _ in range(3)]
    assert statuses == [200, 401, 200]


# Credentials of one kind where another belongs.


async def _sealed(site: Guarded, headers: Headers) -> dict[str, str]:
    """What the gateway itself signs: a session, a ticket, a lease."""
    session = await ask(site.port, "POST", "/session", b"", headers)
    ticket = await ask(site.port, "POST", "/ticket?uri=mem::Topics::open.t", b"", headers)
    assert (await ask(site.port, "POST", "/mq/mem/Queues/open.lease", b"x", headers)).status == 200
    lease = await ask(site.port, "POST", "/mq/mem/Queues/open.lease/receive", b"", headers)
    cookie = session.headers["set-cookie"].partition(";")[0].partition("=")[2]
    return {"session": cookie, "ticket": ticket.json["ticket"], "lease": lease.json["messages"][0]["lease"]}


@pytest.mark.parametrize("kind", ["api token", "jwt"])
async def test_what_the_gateway_signs_is_good_for_one_thing(site: Guarded, kind: str) -> None:
    headers = site.as_("robot") if kind == "api token" else bearer(site.issuer.token(fresh()))
    sealed = await _sealed(site, headers)
    cookie = "__Host-mq-gateway={}".format
    assert (await ask(site.port, "GET", "/mq", None, {"Cookie": cookie(sealed["session"])})).status == 200
    for name, text in sealed.items():
        for answer in (await each(site, bearer(text))).values():
            refused(answer, text)
        if name != "session":
            refused(await ask(site.port, "GET", "/mq", None, {"Cookie": cookie(text)}))
        if name != "ticket":
            refused(await ask(site.port, "GET", f"/mq/mem/Topics/open.t/events?ticket={text}"))
    for other in ("open.u", "secret"):
        refused(await ask(site.port, "GET", f"/mq/mem/Topics/{other}/events?ticket={sealed['ticket']}"))
    for method, target in OPERATIONS.values():
        if not target.endswith("/events"):
            answer = await ask(
                site.port, method, f"{target}?ticket={sealed['ticket']}", b"" if method == "POST" else None
            )
            refused(answer)
    site.secrets += (text for text in sealed.values() if len(text) > 40)


async def test_of_another_gateway(site: Guarded, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same configuration with tokens and a secret of its own; the issuer is the same, and so its JWTs are good."""
    folder = tmp_path_factory.mktemp("another")
    with guarded(folder, {"mem": MEMORY}, POLICY, names=("robot",)) as another:
        sealed = await _sealed(another, another.as_("robot"))
        for answer in (await each(site, another.as_("robot"))).values():
            refused(answer)
        refused(await ask(site.port, "GET", "/mq", None, {"Cookie": f"__Host-mq-gateway={sealed['session']}"}))
        refused(await ask(site.port, "GET", f"/mq/mem/Topics/open.t/events?ticket={sealed['ticket']}"))
        answer = await ask(
            site.port, "POST", f"/mq/mem/Queues/open.lease/ack?lease={sealed['lease']}", b"", site.as_("robot")
        )
        assert answer.json["results"][0]["result"] != "done", answer


# Good credentials of somebody else.


async def may(site: Guarded, headers: Headers, name: str) -> bool:
    """Whether they may publish to this Queue; what they may not is 403."""
    answer = await ask(site.port, "POST", f"/mq/mem/Queues/{name}", b"x", headers)
    assert answer.status == 200 or (answer.status, answer.code) == (403, "forbidden"), answer
    return answer.status == 200


async def test_who_is_meant_may(site: Guarded) -> None:
    alice, carol = (bearer(site.issuer.token(fresh(sub=name))) for name in ("alice", "carol"))
    admin = bearer(site.issuer.token(fresh(sub="dave", groups="admin")))
    assert await may(site, alice, "alice.x")
    assert await may(site, alice, "own.alice.x")
    assert await may(site, carol, "carol.x")
    assert await may(site, admin, "admin.x")
    assert await may(site, site.as_("robot"), "robot.x")
    assert (await ask(site.port, "POST", "/mq/mem/Queues/nobody", b"x")).status == 200
    assert not await may(site, alice, "nobody")


ALIKE = {
    "capital": "Alice",
    "capitals": "ALICE",
    "cyrillic a": "\u0430lice",
    "fullwidth a": "\uff41lice",
    "roman numeral i": "al\u2170ce",
    "dotless i": "al\u0131ce",
    "combining acute": "alice\u0301",
    "composed": "alic\u00e9",
    "small capital": "\u1d00lice",
    "subdomain": "alice.evil",
    "mail address": "alice@evil.example",
    "percent": "%61lice",
    "plus": "alice+x",
    "prefix": "alic",
    "suffix": "xalice",
    "backslash": "\\alice",
    "quoted": '"alice"',
    "regular expression": "alic.",
    "placeholder": "{principal}",
    "a colon": "alice:",
    "a comma": "alice,robot",
    "way in capitals": "TOKEN:robot",
    "group in capitals": "Group:admin",
    "anonymous in capitals": "Anonymous",
    "name of a token": "robot",
}


@pytest.mark.parametrize("name", ALIKE)
async def test_who_only_looks_like_it_is_another_one(site: Guarded, name: str) -> None:
    """Names are compared letter for letter: a JWT called like a rule's `token:robot`, or like a twin of alice."""
    headers = bearer(site.issuer.token(fresh(sub=ALIKE[name], groups=["Admin", "admin ", "*", "group:admin"])))
    assert await may(site, headers, "open.q")
    for forbidden in ("alice.x", "robot.x", "carol.x", "admin.x", "own.alice.x", "nobody"):
        assert not await may(site, headers, forbidden), forbidden
    told = (await ask(site.port, "GET", "/session", None, headers)).json
    assert told["principal"] == f"jwt:{ALIKE[name]}"


async def test_an_api_token_is_no_jwt_of_that_name(site: Guarded) -> None:
    assert not await may(site, site.as_("carol"), "carol.x")
    assert await may(site, site.as_("carol"), "own.carol.x")


REACHING = ["al", "a.b", ":", "a:", ":a", "x,alice", "%2Fx", "..", "a b", "{claims.sub}", "$1", "?", "#"]


@pytest.mark.parametrize("sub", REACHING)
async def test_a_name_in_a_pattern_is_a_literal(site: Guarded, sub: str) -> None:
    headers = bearer(site.issuer.token(fresh(sub=sub)))
    for name in ("alice.x", "own.alice.x", "own.x", "own..x", "own.", "own.alice.b.x"):
        assert not await may(site, headers, name), name
