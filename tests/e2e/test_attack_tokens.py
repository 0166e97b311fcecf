"""Credentials that are not to be taken, each by name, at a gateway that knows tokens and JWTs.

What of a JWT is wrong in which way is decided in `tests/unit/auth/test_jwt.py`, case by case; here each kind is shown
at the door, on every kind of request.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth.sessions import COOKIE
from app.auth.token_file import hash_of
from tests.e2e.callers import Callers, bearer
from tests.e2e.crowd import Raw
from tests.e2e.live_gateway import LiveGateway, write_config
from tests.unit.auth.jwt_issuer import AUDIENCE, ISSUER, Issuer, b64, claims, compact, document, rsa_key

OF_ISSUER = Issuer()
FORGER = Issuer(key=rsa_key("forger"))
PUBLIC = OF_ISSUER.key.public_key()


def fresh(**changes: Any) -> dict[str, Any]:
    """Claims of a token that is good for some minutes."""
    return claims(**{"exp": int(time.time()) + 600, **changes})


@dataclass
class Site:
    """`alice` has an API token, and somebody of that name a JWT: what may the one, may not the other."""

    gateway: LiveGateway
    token: str
    hash: str

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.gateway.port}")

    async def ask(self, method: str, target: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.request(method, target, headers=headers, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("attack")
    callers = Callers(folder)
    token = callers.add("alice")
    (folder / "jwks.json").write_bytes(document(OF_ISSUER.jwk()))
    everything = ["publish", "subscribe", "take", "look", "admin"]
    policy = [
        {"principals": ["token:alice"], "allow": everything, "uris": ["demo::Queues::*", "demo::Topics::*"]},
        {"principals": ["jwt:alice"], "allow": everything, "uris": ["demo::Queues::jwt"]},
        {"principals": ["group:ops"], "allow": everything, "uris": ["demo::Queues::ops"]},
        {"principals": ["*"], "allow": ["publish"], "uris": ["demo::Queues::{principal}.*"]},
    ]
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(folder / "jwks.json")}
    auth = callers.auth(mode=["token", "jwt"], jwt=jwt, policy=policy)
    demo = {"mq_type": "Memory", "allow_undeclared": True, "queues": {"jobs": {}}, "topics": {"news": {}}}
    gateway = LiveGateway(write_config(folder, {"demo": demo}, auth=auth))
    try:
        gateway.await_start()
        yield Site(gateway, token, hash_of(token))
        assert gateway.problems() == []
        assert token not in gateway.log.read_text()
    finally:
        gateway.kill()


def hmac_with(secret: bytes) -> str:
    """A token signed with what everybody knows, as if it were a shared secret."""
    return compact({"alg": "HS256", "typ": "JWT", "kid": "k1"}, fresh(), "HS256", secret)


def unsigned(algorithm: str) -> str:
    head, payload = (b64(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, fresh()))
    return f"{head}.{payload}."


JWTS = {
    "forged": lambda: FORGER.token(fresh()),
    "forged with the issuer's kid": lambda: FORGER.token(fresh(), kid="k1"),
    "expired": lambda: OF_ISSUER.token(fresh(exp=int(time.time()) - 1)),
    "without an end": lambda: OF_ISSUER.token(fresh(exp=...)),
    "not yet valid": lambda: OF_ISSUER.token(fresh(nbf=int(time.time()) + 60)),
    "for another audience": lambda: OF_ISSUER.token(fresh(aud="other")),
    "for no audience": lambda: OF_ISSUER.token(fresh(aud=...)),
    "of another issuer": lambda: OF_ISSUER.token(fresh(iss="https://evil.example")),
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg nOnE": lambda: unsigned("nOnE"),
    "alg none with a signature": lambda: unsigned("none") + OF_ISSUER.token(fresh()).rpartition(".")[2],
    "alg empty": lambda: unsigned(""),
    "key confusion with the PEM": lambda: hmac_with(
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "key confusion with the PEM of PKCS#1": lambda: hmac_with(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1)),
    "key confusion with the DER": lambda: hmac_with(
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ),
    "key confusion with the JWK": lambda: hmac_with(json.dumps(OF_ISSUER.jwk()).encode()),
    "key confusion with the modulus": lambda: hmac_with(base64.urlsafe_b64decode(OF_ISSUER.jwk()["n"] + "==")),
    "an empty secret": lambda: hmac_with(b"\0" * 32),
    "another algorithm of the same key": lambda: compact(
        {"alg": "PS256", "typ": "JWT", "kid": "k1"}, fresh(), "PS256", OF_ISSUER.key
    ),
    "an unknown kid": lambda: OF_ISSUER.token(fresh(), kid="k2"),
    "a kid that is a path": lambda: OF_ISSUER.token(fresh(), kid="../../dev/null"),
    "a kid that is SQL": lambda: OF_ISSUER.token(fresh(), kid="' OR 1=1 --"),
    "a kid that is a list": lambda: OF_ISSUER.token(fresh(), kid=["k1"]),
    "a critical extension": lambda: OF_ISSUER.token(fresh(), crit=["exp"], exp=1),
    "an unencoded payload": lambda: OF_ISSUER.token(fresh(), crit=["b64"], b64=False),
    "its own key in the header": lambda: FORGER.token(fresh(), jwk=FORGER.jwk(), kid=...),
    "its own key by URL": lambda: FORGER.token(fresh(), jku="http://127.0.0.1:1/keys", kid="f"),
    "its own certificate": lambda: FORGER.token(fresh(), x5c=["AAAA"], x5u="http://127.0.0.1:1/x"),
    "another kind of token": lambda: OF_ISSUER.token(fresh(), typ="logout+jwt"),
    "the payload of another": lambda: ".".join(
        part
        for at, part in enumerate(OF_ISSUER.token(fresh()).split("."))
        for part in [part if at != 1 else b64(json.dumps(fresh(sub="root")).encode())]
    ),
    "without its signature": lambda: OF_ISSUER.token(fresh()).rpartition(".")[0] + ".",
    "cut off": lambda: OF_ISSUER.token(fresh())[:-5],
    "two parts": lambda: OF_ISSUER.token(fresh()).rpartition(".")[0],
    "five parts": lambda: OF_ISSUER.token(fresh()) + ".a.b",
    "padded": lambda: OF_ISSUER.token(fresh()) + "==",
    "about everybody": lambda: OF_ISSUER.token(fresh(sub="*")),
    "about nobody": lambda: OF_ISSUER.token(fresh(sub="anonymous")),
    "about a group": lambda: OF_ISSUER.token(fresh(sub="group:ops")),
    "about a token's owner": lambda: OF_ISSUER.token(fresh(sub="token:alice")),
    "about part of an mqURI": lambda: OF_ISSUER.token(fresh(sub="a::b")),
    "about a path": lambda: OF_ISSUER.token(fresh(sub="a/b")),
    "about a list": lambda: OF_ISSUER.token(fresh(sub=["alice"])),
    "groups that are no texts": lambda: OF_ISSUER.token(fresh(groups={"ops": True})),
}

REQUESTS = [
    ("POST", "/mq/demo/Queues/jobs"),
    ("POST", "/mq/demo/Queues/jobs/batch"),
    ("POST", "/mq/demo/Queues/jobs/receive"),
    ("GET", "/mq/demo/Topics/news/events"),
    ("GET", "/events?uri=demo::Topics::news"),
    ("GET", "/mq"),
    ("GET", "/metrics"),
    ("POST", "/session"),
    ("POST", "/ticket?uri=demo::Topics::news"),
]


async def refused_everywhere(site: Site, headers: dict[str, str]) -> None:
    """401, a problem, and a challenge; and nothing of the credentials in the answer."""
    async with site.client() as client:
        for method, target in REQUESTS:
            answer = await client.request(method, target, headers=headers)
            assert answer.status_code == 401, (method, target, answer.text)
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            for value in headers.values():
                assert len(value) < 20 or value[10:] not in answer.text


@pytest.mark.parametrize("case", JWTS)
async def test_a_jwt_that_is(site: Site, case: str) -> None:
    await refused_everywhere(site, bearer(JWTS[case]()))


async def test_a_jwt_that_is_longer_than_any(site: Site) -> None:
    for size, statuses in ((5800, (401, 431)), (60_000, (431,))):
        headers = bearer(OF_ISSUER.token(fresh(pad="x" * size)))
        assert (await site.ask("GET", "/mq", headers)).status_code in statuses


async def test_a_jwt_that_is_good(site: Site) -> None:
    good = bearer(OF_ISSUER.token(fresh(groups=["ops"])))
    for queue, status in (("jwt", 200), ("ops", 200), ("alice.a", 200), ("jobs", 403), ("bob.a", 403)):
        answer = await site.ask("POST", f"/mq/demo/Queues/{queue}", good, content=b"x")
        assert answer.status_code == status, (queue, answer.text)


LOOKALIKES = ["\u0430lice", "alice\u200b", "\uff41lice", "ALICE", "alice.", "alic\u0435"]


@pytest.mark.parametrize("name", LOOKALIKES, ids=ascii)
async def test_a_name_that_looks_like_another_is_another(site: Site, name: str) -> None:
    answer = await site.ask("POST", "/mq/demo/Queues/jwt", bearer(OF_ISSUER.token(fresh(sub=name))), content=b"x")
    assert answer.status_code in (401, 403), answer.text


def of_token(site: Site) -> dict[str, dict[str, str]]:
    token = site.token
    return {
        "one character less": bearer(token[:-1]),
        "one character more": bearer(token + "A"),
        "one character changed": bearer(token[:-1] + ("A" if token[-1] != "A" else "B")),
        "in capitals": bearer(token.upper()),
        "without its prefix": bearer(token[4:]),
        "only its prefix": bearer(token[:4]),
        "its hash": bearer(site.hash),
        "its hash without the algorithm": bearer(site.hash.partition(":")[2]),
        "its name": bearer("alice"),
        "twice": bearer(f"{token} {token}"),
        "with a comma": bearer(f"{token}, {token}"),
        "as Basic": {"Authorization": "Basic " + base64.b64encode(f"alice:{token}".encode()).decode()},
        "as Token": {"Authorization": f"Token {token}"},
        "without a scheme": {"Authorization": token},
        "without a space": {"Authorization": f"Bearer{token}"},
        "no token": {"Authorization": "Bearer"},
        "an empty header": {"Authorization": ""},
        "under another name": {"X-Api-Key": token, "Proxy-Authorization": f"Bearer {token}"},
        "as a cookie": {"Cookie": f"{COOKIE}={token}"},
        "said by no proxy": {"X-SSL-Client-S-DN": "alice", "X-SSL-Client-Verify": "SUCCESS", "X-Remote-User": "alice"},
    }


async def test_an_api_token_that_is_nearly_one(site: Site) -> None:
    assert (await site.ask("GET", "/mq", bearer(site.token))).status_code == 200
    assert (await site.ask("GET", "/mq", {"Authorization": f"bEARER   {site.token}"})).status_code == 200
    for headers in of_token(site).values():
        await refused_everywhere(site, headers)


@pytest.mark.parametrize("name", ["access_token", "token", "ticket", "key"])
async def test_a_token_in_the_query(site: Site, name: str) -> None:
    for method, target in REQUESTS:
        mark = "&" if "?" in target else "?"
        answer = await site.ask(method, f"{target}{mark}{name}={site.token}", {})
        assert answer.status_code in (400, 401), (target, answer.text)
        assert site.token not in answer.text


async def test_a_token_in_a_form(site: Site) -> None:
    answer = await site.ask("POST", "/mq/demo/Queues/jobs", {}, data={"access_token": site.token})
    assert answer.status_code == 401


async def test_two_authorizations_are_none(site: Site) -> None:
    """Which of the two counts would be told differently by each proxy on the way."""
    raw = await Raw.connect(site.gateway.port)
    line = f"Authorization: Bearer {site.token}\r\n"
    await raw.send(f"GET /mq HTTP/1.1\r\nHost: a\r\n{line}{line}Connection: close\r\n\r\n".encode())
    assert b" 400 " in (await raw.rest()).partition(b"\r\n")[0]
    raw.close()


async def test_what_is_sealed_is_good_for_one_thing(site: Site) -> None:
    """A session is no ticket and no bearer token, and the other way round."""
    token = bearer(site.token)
    session = (await site.ask("POST", "/session", token)).headers["set-cookie"].partition("=")[2].partition(";")[0]
    ticket = (await site.ask("POST", "/ticket?uri=demo::Topics::news", token)).json()["ticket"]
    await refused_everywhere(site, bearer(session))
    await refused_everywhere(site, bearer(ticket))
    await refused_everywhere(site, {"Cookie": f"{COOKIE}={ticket}"})
    for target in ("/mq/demo/Topics/news/events", "/events?uri=demo::Topics::news"):
        mark = "&" if "?" in target else "?"
        assert (await site.ask("GET", f"{target}{mark}ticket={session}", {})).status_code == 401
    assert (await site.ask("GET", "/mq", {"Cookie": f"{COOKIE}={session}"})).status_code == 200
