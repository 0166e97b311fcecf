"""No secret leaves the process where it does not belong: everything that it says is searched for every one it knows.

Answers that hand a secret out to whom it is for (a session's cookie, a ticket) are searched without it, and what a
client itself sent with a request may come back to it in the answer to that request, and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from app.auth.token_file import new_token
from tests.brokers.process import free_port
from tests.brokers.tls import Authority
from tests.e2e.callers import Callers, bearer, cookie
from tests.e2e.crowd import Raw
from tests.e2e.http_client import Answer, Sse, ask, eventually
from tests.e2e.live_gateway import ROOT, LiveGateway, write_config
from tests.faults.peer import Script, ScriptedPeer
from tests.stomp_frames import Frame
from tests.unit.auth.jwks_publisher import published, publishing, response, saying
from tests.unit.auth.jwt_issuer import AUDIENCE, ISSUER, Issuer, claims, ed_key

#: Characters of the shortest part of a secret that is looked for.
SHORTEST = 8
ISSUED = Issuer("EdDSA", ed_key("secret"), "k1")
FORGER = Issuer("EdDSA", ed_key("forger"), "k1")
QUEUE = "/mq/peer/Queues/jobs"


def spellings(secret: str) -> Iterator[bytes]:
    """All forms in which a secret would still be one: whole, halved, reversed, and each of them encoded."""
    half = len(secret) // 2
    parts = {secret, secret[::-1]}
    if half >= SHORTEST:
        parts |= {secret[:half], secret[half:], secret[:half][::-1], secret[half:][::-1]}
    for part in parts:
        raw = part.encode()
        yield from (raw, raw.hex().encode(), quote(part, safe="").encode(), quote(part).encode())
        yield from (quote_plus(part).encode(), json.dumps(part)[1:-1].encode(), repr(part)[1:-1].encode())
        yield repr(raw)[2:-1].encode()
        yield part.replace("\\", "\\\\").replace(":", "\\c").encode()  # STOMP 1.2
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset in range(3):
                # Within something longer, the digits that do not hang on its neighbours.
                digits = encode(b"\0" * offset + raw)
                yield digits[(0, 2, 3)[offset] : (len(raw) + offset) // 3 * 4]


@dataclass
class Secrets:
    """What must not be seen, by name; `said` is everything that was said, by where."""

    known: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, name: str, secret: str) -> str:
        assert len(secret) >= SHORTEST, name
        self.known[name] = secret
        return secret

    def add_jwt(self, name: str, text: str) -> str:
        """Its signature and its payload, each of which is as bad; the head is no secret."""
        _, payload, signature = text.split(".")
        self.add(f"{name}, its payload", payload)
        self.add(f"{name}, its signature", signature)
        return text

    def note(self, where: str, data: bytes) -> None:
        self.said.append((where, data))

    def found(self) -> list[str]:
        """Which of them was seen where."""
        return [
            f"{name} in {where}: …{_around(data, spelling)}…"
            for name, secret in self.known.items()
            for spelling in {each for each in spellings(secret) if len(each) >= SHORTEST}
            for where, data in self.said
            if spelling in data
        ]


def _around(data: bytes, found: bytes) -> str:
    at = data.index(found)
    return data[max(0, at - 80) : at + len(found) + 20].decode(errors="replace")


def test_the_search_finds_what_is_planted() -> None:
    password = "pä:ss/w&rd+%=?#\\'\"quoted"
    plants = [
        password.encode(),
        password[12:].encode(),
        f"<{password[::-1]}>".encode(),
        json.dumps({"password": password}).encode(),
        json.dumps({"password": password}, ensure_ascii=False).encode(),
        repr({"password": password}).encode(),
        f"GET /?password={quote_plus(password)}".encode(),
        base64.b64encode(f"user:{password}".encode()),
        base64.b64encode(f"users:{password}!".encode()),
        base64.urlsafe_b64encode(f"user1:{password}".encode()),
        password.encode().hex().encode(),
        f"passcode:{password}".replace("\\", "\\\\").replace("ss:", "ss\\c").encode(),
    ]
    for plant in plants:
        secrets = Secrets({"password": password}, [("here", b"before " + plant + b" behind")])
        assert secrets.found(), plant
    assert not Secrets({"password": password}, [("here", b"before password behind")]).found()


@dataclass
class Site:
    """Files with secrets, and a configuration that uses them all."""

    folder: Path
    secrets: Secrets
    services: dict[str, Any]
    auth: dict[str, Any]
    token: str
    environment: dict[str, str]

    def write(self, **server: Any) -> Path:
        return write_config(self.folder, self.services, auth=self.auth, server=server)


def _site(folder: Path, peer: ScriptedPeer, rude: ScriptedPeer, url: str) -> Site:
    secrets = Secrets()
    add = secrets.add
    callers = Callers(folder)
    token = add("token", callers.add("alice"))
    key = Authority(folder / "tls").client()
    add("key", "".join(key.key_file.read_text().splitlines()[1:-1])[20:60])
    (folder / "password").write_text(add("password_file", "fi le:pass/w&rd+%=?#'\"é-1f4b9a") + "\n")
    (folder / "secret").write_text(add("secret_file", "seal-of-replicas-77c1e0-9b2d"))
    add("query of jwks_url", "hush-7d41aa90c3")
    quick = {"reconnect": {"initial": 0.1, "max": 0.2}, "connect_timeout": 1}
    stomp = {"mq_type": "Stomp", "host": "127.0.0.1", "user": "guest", **quick}
    services = {
        "peer": {
            **stomp,
            "port": peer.port,
            "password": add("password", "pä:ss/w&rd+%=?#\\'\"quoted-5e0c"),
            "queues": {"jobs": {}},
            "topics": {"news": {}},
        },
        "rude": {**stomp, "port": rude.port, "password_file": str(folder / "password"), "queues": {"a": {}}},
        "dead": {
            **stomp,
            "port": free_port(),
            "password_env": "MQ_SECRET",
            "tls": {"cert_file": str(key.cert_file), "key_file": str(key.key_file)},
        },
    }
    add("foreign option", "opt-44ad0f1e-secret")  # of the configurations with a mistake
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["EdDSA"], "jwks_url": url, "jwks_refresh": 1}
    policy = [{"principals": ["*"], "allow": ["publish", "subscribe", "take", "look"], "uris": ["*"]}]
    auth = callers.auth(mode=["token", "jwt"], jwt=jwt, policy=policy, secret_file=str(folder / "secret"))
    environment = {"MQ_SECRET": add("password_env", "env:pass/w&rd+%=?#'\"ü-83c2d7"), "DIRAC_DEBUG_STOMP": "1"}
    return Site(folder, secrets, services, auth, token, environment)


@contextlib.asynccontextmanager
async def _peers() -> AsyncIterator[tuple[ScriptedPeer, ScriptedPeer]]:
    """One that takes everything, and one that says in its refusal what it was told."""
    echo = Frame("ERROR", {"message": "Access refused"}, b"passcode fi le:pass/w&rd+%=?#'\"\xc3\xa9-1f4b9a is wrong")
    async with ScriptedPeer.listen() as peer, ScriptedPeer.listen(Script(refusal=echo)) as rude:
        yield peer, rude


async def _used(site: Site, gateway: LiveGateway) -> None:
    """Everything that goes well."""
    secrets, port = site.secrets, gateway.port
    good = secrets.add_jwt("JWT", ISSUED.token(claims(exp=time.time() + 600)))

    async def knows() -> bool:
        return (await ask(port, "POST", QUEUE, b"x", bearer(good))).status == 200

    await eventually(knows, "the keys of the issuer, and the peer")
    signed_in = await ask(port, "POST", "/session", headers=bearer(site.token))
    value = signed_in.headers.pop("set-cookie").partition(";")[0].partition("=")[2]
    secrets.add_jwt("session", value)
    ticket = (await ask(port, "POST", "/ticket?uri=peer::Topics::news", headers=bearer(site.token))).json["ticket"]
    secrets.add_jwt("ticket", ticket)
    _noted(secrets, "POST /session", signed_in)
    for shown in (bearer(site.token), bearer(good), cookie(value)):
        for method, path in _ANSWERS:
            _noted(
                secrets, f"{method} {path}", await ask(port, method, path, b"x" if method == "POST" else None, shown)
            )
    async with await Sse.open(port, f"/mq/peer/Topics/news/events?ticket={ticket}&status=true") as stream:
        secrets.note("stream", repr(stream.headers).encode())
    # Not a second time at once, nor for something else.
    for path in ("/mq/peer/Topics/news/events", "/mq/peer/Queues/jobs/events", "/mq", QUEUE):
        _noted(secrets, path, await ask(port, "GET", f"{path}?ticket={ticket}"), reflects=True)
    _noted(secrets, "DELETE /session", await ask(port, "DELETE", "/session", headers=cookie(value)))
    _noted(secrets, "GET /session", await ask(port, "GET", "/session", headers=cookie(value)))


_ANSWERS = [
    *(("GET", path) for path in ("/mq", "/mq/peer", "/mq/rude", "/mq/dead", QUEUE, "/metrics", "/session", "/no")),
    *(("GET", path) for path in ("/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/init.js", "/")),
    *(("POST", path) for path in (QUEUE, f"{QUEUE}/batch", "/mq/none/Queues/a")),
    *(("POST", f"/mq/{service}/Queues/a") for service in ("rude", "dead")),
]


def _noted(secrets: Secrets, where: str, answer: Answer, *, reflects: bool = False) -> None:
    if not reflects:
        secrets.note(where, repr(answer.headers).encode() + answer.body)


def _odd(token: str) -> dict[str, bytes]:
    """Requests that hold a credential where it does not belong, by that place."""
    post = f"POST {QUEUE} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    encoded = token.replace("_", "%5F").replace(".", "%2E")
    basic = base64.b64encode(f"alice:{token}".encode()).decode()
    requests = {
        "path": f"GET /mq/peer/Queues/{token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "path, encoded": f"GET /mq/peer/Queues/{encoded} HTTP/1.1\r\nHost: a\r\n\r\n",
        "path of nothing": f"GET /{token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "path, as a service": f"POST /mq/{token}/Queues/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "query": f"GET /mq?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "query of a publish": f"POST {QUEUE}?token={token} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "query of a stream": f"GET {QUEUE}/events?ticket={token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "user information": f"GET http://alice:{token}@a/mq HTTP/1.1\r\nHost: a\r\n\r\n",
        "fragment": f"GET /mq#{token} HTTP/1.1\r\nHost: a\r\n\r\n",
        "method": f"{token} /mq HTTP/1.1\r\nHost: a\r\n\r\n",
        "version": f"GET /mq HTTP/{token}\r\nHost: a\r\n\r\n",
        "Host": f"GET /mq HTTP/1.1\r\nConnection: close\r\nHost: {token}\r\n\r\n",
        "header without a name": f"GET /mq HTTP/1.1\r\nHost: a\r\n: {token}\r\n\r\n",
        "name of a header": f"GET /mq HTTP/1.1\r\nHost: a\r\n{token}: a\r\n\r\n",
        "broken header": f"GET /mq HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\0\r\n\r\n",
        "length": f"POST {QUEUE} HTTP/1.1\r\nHost: a\r\nContent-Length: {token}\r\n\r\n",
        "chunk": f"POST {QUEUE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{token}\r\n",
        "no scheme": f"GET /mq HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n",
        "Basic": f"GET /mq HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {basic}\r\n\r\n",
        "twice": "GET /mq HTTP/1.1\r\nHost: a\r\n" + 2 * f"Authorization: Bearer {token}\r\n" + "\r\n",
        "another cookie": f"GET /mq HTTP/1.1\r\nHost: a\r\nCookie: token={token}\r\n\r\n",
        "our cookie": f"GET /mq HTTP/1.1\r\nHost: a\r\nCookie: __Host-mq-gateway={token}\r\n\r\n",
        "request id": f"GET /mq HTTP/1.1\r\nHost: a\r\nX-Request-Id: {token[:128]}\r\n\r\n",
    }
    for name, value in {
        "Idempotency-Key": token,
        "Mq-Correlation-Id": token,
        "Mq-Reply-To": f"peer::Queues::{token}",
        "Mq-Ttl-Ms": token,
        "Mq-Header-Token": token,
        "Mq-Headers": json.dumps({"Authorization": f"Bearer {token}"}),
        "Content-Encoding": token,
        "Content-Type": f"application/json; token={token}",
        "Expect": token,
        "Origin": f"https://{token}",
    }.items():
        for shown in (f"Authorization: Bearer {token}\r\n", ""):
            requests[f"{name}, {'known' if shown else 'unknown'}"] = f"{post}{shown}{name}: {value}\r\n\r\n{{"
    return {name: text.encode("utf-8", "surrogateescape") for name, text in requests.items()}


async def _misused(site: Site, gateway: LiveGateway) -> None:
    """Each credential in every odd place; the answers may reflect it, and nothing else may know."""
    secrets = site.secrets
    others = [secrets.add("unknown token", new_token())]
    others.append(secrets.add_jwt("forged JWT", FORGER.token(claims(exp=time.time() + 600))))
    others.append(secrets.add_jwt("expired JWT", ISSUED.token(claims(exp=time.time() - 600))))
    for text in others:
        _noted(secrets, "unknown credentials", await ask(gateway.port, "GET", "/mq", headers=bearer(text)))
    for text in (site.token, *others):
        for where, request in _odd(text).items():
            raw = await Raw.connect(gateway.port)
            await raw.send(request.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n", 1))
            if where == "chunk":
                await raw.send(b"\r\n")
            async with asyncio.timeout(10):
                answer = await raw.rest()
            raw.close()
            assert answer.startswith(b"HTTP/1.1 "), (where, answer)


async def _reloaded(site: Site, gateway: LiveGateway, config: Path) -> None:
    """Configurations with a mistake beside each secret, and token files that are none."""
    with _restored(config):
        for text in _mistakes(site):
            before = _lines(gateway, "configuration")
            _write(config, text)
            gateway.signal(signal.SIGHUP)
            await _until_more(gateway, "configuration", before)
    tokens = Path(site.auth["tokens_file"])
    entry = json.dumps({"tokens": [{"name": site.token, "hash": site.token}]})
    with _restored(tokens):
        for broken in (entry, site.token, f"[{site.token}"):
            before = _lines(gateway, _UNCHANGED)
            _write(tokens, broken)
            await _until_more(gateway, _UNCHANGED, before)


_UNCHANGED = "the file of tokens stays as it was"


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _lines(gateway: LiveGateway, text: str) -> int:
    return gateway.log.read_text().count(text)


async def _until_more(gateway: LiveGateway, text: str, before: int) -> None:
    async def more() -> bool:
        return _lines(gateway, text) > before

    await eventually(more, f"a line about {text}")


@contextlib.contextmanager
def _restored(path: Path) -> Iterator[None]:
    """The file may be written to, and is as it was afterwards."""
    content = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(content)


def _mistakes(site: Site) -> list[str]:
    """Whole files, each wrong in one way."""
    peer, password = site.services["peer"], site.services["peer"]["password"]

    def service(**changes: Any) -> str:
        return json.dumps({"services": {**site.services, "peer": {**peer, **changes}}, "auth": site.auth})

    return [
        service(pasword=password),
        service(password={"is": password}),
        service(password=[password]),
        service(password=password, password_env="MQ_SECRET"),
        service(port=password),
        service(tls=password),
        service(heartbeat_ms=password),
        service(queues=password),
        service(queues={"jobs": {"prefetch": password}}),
        service(queues={"jobs": {"prefetch": site.token}}, connections=password),
        service(mq_type="Memory", options={"token": site.secrets.known["foreign option"]}),
        service(password_env=password, password=None),
        json.dumps({"services": site.services, "auth": {**site.auth, "secret": site.secrets.known["secret_file"]}}),
        json.dumps({"services": site.services, "auth": {**site.auth, "mode": [site.token]}}),
        f"services:\n  peer:\n    password: 'open {site.secrets.known['password_env']}\n",
        f'services:\n  peer:\n    password: "\\q{site.secrets.known["password_env"]}"\n',
        f"services:\n  peer:\n    password: *{site.secrets.known['foreign option']}\n",
        f"services:\n  peer:\n    password: @{site.secrets.known['foreign option']}\n",
        f"services:\n\tpeer: {{password: {site.secrets.known['foreign option']}}}\n",
        f"services: {{peer: {{password: a, password: {site.secrets.known['foreign option']}}}}}\n",
    ]


async def _command(site: Site, *arguments: str, **environment: str) -> bytes:
    """What a command says on both its channels."""
    env = {"LANG": "C.UTF-8", "HOME": str(site.folder), "COLUMNS": "500", **site.environment, **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *arguments, cwd=ROOT, env=env,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert said
    return said


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_a_gateway_that_is_used_and_misused(tmp_path: Path, log_format: str) -> None:
    keys = publishing(ISSUED.jwk())
    async with _peers() as (peer, rude), published(keys) as issuer:
        site = _site(tmp_path, peer, rude, f"http://127.0.0.1:{issuer.port}/keys?token=hush-7d41aa90c3")
        config = site.write(log_format=log_format, log_level="debug")
        gateway = LiveGateway(config, **site.environment)
        with contextlib.ExitStack() as ending:
            ending.callback(gateway.kill)
            await _until_more(gateway, "listening on", 0)
            await _used(site, gateway)
            await _misused(site, gateway)
            issuer.answer = saying(response(b"hush-7d41aa90c3", "500 hush-7d41aa90c3"))
            await _reloaded(site, gateway, config)
            signed = bearer(site.token)
            for path in ("/mq", "/metrics", "/mq/rude", "/health/ready"):
                _noted(site.secrets, f"{path} at the end", await ask(gateway.port, "GET", path, headers=signed))
            gateway.signal()
            assert await gateway.ended(20) == 0
            assert gateway.problems() == []
            log = gateway.log.read_bytes()
            site.secrets.note("log", log)
    # What was to be in the log is: each kind of failure, frames, and requests.
    for expected in (b"auth_failed", b"CONNECT", b"SEND", b"invalid_", b"unauthenticated", b"/keys", b"jobs"):
        assert expected in log, expected
    assert site.secrets.found() == [], "\n".join(site.secrets.found())
    assert len(site.secrets.known) >= 14


async def test_commands(tmp_path: Path) -> None:
    async with _peers() as (peer, rude):
        site = _site(tmp_path, peer, rude, f"http://127.0.0.1:{free_port()}/keys?token=hush-7d41aa90c3")
        config = site.write()
        runs: dict[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
            "check": (("check", "--config", str(config)), {}),
            "check --connect": (("check", "--connect", "--config", str(config)), {}),
            "token list": (("token", "list", "--config", str(config)), {}),
            "variables": (
                ("check", "--config", str(config)),
                {"MQ_GATEWAY_SERVICES": '{"peer": {"password": ' + json.dumps(site.secrets.known["password"])},
            ),
            "variable of a section": (
                ("check", "--config", str(config)),
                {"MQ_GATEWAY_AUTH__SECRET": site.secrets.known["secret_file"]},
            ),
        }
        for number, text in enumerate(_broken(site)):
            path = tmp_path / f"broken-{number}.{'cfg' if text.startswith('Resources') else 'yaml'}"
            path.write_text(text)
            runs[f"{'serve' if number % 4 == 0 else 'check'} {text[-60:]}"] = (
                ("serve" if number % 4 == 0 else "check", "--config", str(path)),
                {},
            )

        limit = asyncio.Semaphore(2)

        async def run(name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
            async with limit:
                site.secrets.note(name, await _command(site, *arguments, **environment))

        await asyncio.gather(*(run(name, *each) for name, each in runs.items()))
    said = dict(site.secrets.said)
    assert b"**" in said["check"], "that there is a password is told"
    assert b"auth_failed" in said["check --connect"]
    assert site.secrets.found() == [], "\n".join(site.secrets.found())


def _broken(site: Site) -> Iterable[str]:
    """One of each kind; the others are reloaded into a gateway that runs."""
    mistakes = _mistakes(site)
    yield from (mistakes[0], mistakes[4], mistakes[-6], mistakes[-2])
    password = site.secrets.known["password_env"]
    head = "Resources\n{\n  MQServices\n  {\n    peer\n    {\n      MQType = Stomp\n      Host = a\n"
    yield f"{head}      Pasword = {password}\n      Port = {password}\n    }}\n  }}\n}}\n"
    yield f"{head}      Password = {password}\n      {password}\n    }}\n"
