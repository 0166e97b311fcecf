"""Whoever is unknown gets nowhere, and whoever may nothing gets nothing: every route there is, by every method.

What is open is written down here once more, and not taken from the application: a page that is to be open is added in
both places, any other one gets a rule of who may see it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.api.openapi import document
from app.api.paths import METHODS
from app.auth.token_change import change_tokens
from app.auth.token_file import TokenEntry, hash_of, new_token
from tests.e2e.http_gateway import Served, serving
from tests.routes import PATHS

TOKEN = new_token()
#: With an id of its own: one of ours grows, and the answer with it.
ALICE = (f"Authorization: Bearer {TOKEN}", "X-Request-Id: 0123456789")
SECRET = "for the tests of routes: 0123456789"

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY")
#: Refused by the server, before there is an application to ask.
BY_SERVER = {"CONNECT": {400, 405}, "BREW": {400}}

READING = ("GET", "HEAD")
OPEN_PAGES = {
    *("/", "/docs", "/docs/init.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"),
    *("/openapi.json", "/health/live", "/health/ready"),
}
#: What is answered without credentials.
OPEN = {(method, path): 200 for path in OPEN_PAGES for method in READING} | {("DELETE", "/session"): 204}
#: What is answered to whoever is known and may nothing: it learns who it is.
KNOWN = OPEN | {("GET", "/session"): 200, ("HEAD", "/session"): 200, ("POST", "/session"): 200}
#: Where the path says nothing of what is asked for, so that the method is looked at first.
METHOD_FIRST = {path: METHODS[kind] for kind, path in PATHS.items() if path in ("/events", "/session", "/ticket")}
#: For replicas of this gateway, which show a seal and no credentials.
PEER = "/peer/leases"


def _auth(folder: Path, **settings: Any) -> dict[str, Any]:
    """Mode token, with the one token and no rule."""
    tokens, secret = folder / "tokens.json", folder / "secret"
    change_tokens(tokens, lambda _before: [TokenEntry(name="alice", principal="alice", hash=hash_of(TOKEN))])
    secret.write_text(SECRET)
    return {"mode": "token", "tokens_file": str(tokens), "secret_file": str(secret), **settings}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(auth=_auth(tmp_path)) as running:
        yield running


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def _ask(served: Served, method: str, target: str, *headers: str) -> Said:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    head, _, body = (await served.raw("\r\n".join(lines).encode())).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return Said(
        int(first.split()[1]), {name: value for name, _, value in (line.partition(": ") for line in rest)}, body
    )


def _paths(app: FastAPI) -> set[str]:
    """Everything there is a path of: kinds, FastAPI's routes, the document."""
    routes = list(iter_route_contexts(app.routes))
    assert all(isinstance(route.original_route, APIRoute) for route in routes), "what is mounted is not walked here"
    return {*(PATHS[kind] for kind in METHODS), *(str(route.path) for route in routes), *document("")["paths"], PEER}


def _targets(path: str, name: str = "jobs", service: str = "demo") -> Iterator[str]:
    """The path for a Queue and for a Topic."""
    for kind, word in (("Queues", name), ("Topics", "events")):
        filled = path.format(service=service, type=kind, name=word)
        yield f"{filled}?uri={service}::{kind}::{word}" if path in ("/events", "/ticket") else filled
        if "{type}" not in path and path not in ("/events", "/ticket"):
            return


async def _violations(served: Served, closed: int, allowed: dict[tuple[str, str], int], *headers: str) -> list[str]:
    """What is answered otherwise than by `closed`, or as `allowed` says."""
    found = []
    for path in sorted(_paths(served.app)):
        for method in (*VERBS, *BY_SERVER):
            for target in _targets(path):
                said = await _ask(served, method, target, *headers)
                if said.status not in _expected(path, method, closed, allowed):
                    found.append(f"{method} {target}: {said.status}")
                elif said.status == closed == 401 and "Bearer" not in said.headers.get("www-authenticate", ""):
                    found.append(f"{method} {target}: says no way to authenticate")
                elif said.status >= 400 and method != "HEAD" and said.json["status"] != said.status:
                    found.append(f"{method} {target}: {said.json}")
    return found


def _expected(path: str, method: str, closed: int, allowed: dict[tuple[str, str], int]) -> set[int]:
    if method in BY_SERVER:
        return BY_SERVER[method]
    if path == PEER:
        return {403}
    if (method, path) in allowed:
        return {allowed[method, path]}
    if path in OPEN_PAGES:
        return {405}
    # Whoever is unknown learns not even what may be done.
    return {405} if closed == 403 and method not in METHOD_FIRST.get(path, (method,)) else {closed}


async def test_without_credentials_nothing_but_the_list_is_answered(served: Served) -> None:
    assert await _violations(served, 401, OPEN) == []


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(f"Authorization: Bearer {new_token()}", id="another token"),
        pytest.param("Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", id="a JWT nobody signed"),
        pytest.param("Authorization: Basic YWxpY2U6eA==", id="another scheme"),
        pytest.param(f"Authorization: {TOKEN}", id="no scheme"),
        pytest.param("Cookie: __Host-mq-gateway=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", id="a cookie"),
    ],
)
async def test_neither_is_it_with_credentials_that_do_not_hold(served: Served, credentials: str) -> None:
    assert await _violations(served, 401, OPEN, credentials) == []


async def test_who_may_nothing_gets_nothing(served: Served) -> None:
    assert await _violations(served, 403, KNOWN, f"Authorization: Bearer {TOKEN}") == []


@pytest.mark.parametrize("path", ["/added", "/docs/added", "/health/added", "/mq/added"])
async def test_a_route_that_is_added_without_a_rule_is_found(served: Served, path: str) -> None:
    @served.app.get(path)
    async def added() -> str:
        return "something"

    unknown = await _violations(served, 401, OPEN)
    known = await _violations(served, 403, KNOWN, f"Authorization: Bearer {TOKEN}")
    # Below /mq nothing of FastAPI is ever reached: there it is a service that is looked at, under the policy of those.
    assert any(line.startswith(f"GET {path}: ") for line in (*unknown, *known)) is (path != "/mq/added")
    # It is given to nobody, but in a folder of open pages.
    assert (f"GET {path}: 200" in unknown, f"GET {path}: 200" in known) == (path.startswith("/docs/"),) * 2


def test_the_document_calls_open_what_is_open() -> None:
    described = document("")
    verbs = {
        (method.upper(), path): operation.get("security", described["security"])
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
        if method in {"get", "post", "put", "patch", "delete"}
    }
    assert {place for place, security in verbs.items() if not security or {} in security} == OPEN.keys() & verbs.keys()


ODD = [
    *("//metrics", "/metrics/", "/%6detrics", "/METRICS", "/Metrics", "/./metrics", "/metrics;x", "/;/metrics"),
    *("/metrics%00", "/metrics%20", "/metrics%2f", "/metrics%2e", "/..%2fmetrics", "/%2fmetrics", "/metrics?x=1"),
    *("/health/../metrics", "/health/live/../../metrics", "/health/live/", "/health/live;x", "/HEALTH/live", "/Docs"),
    *("/docs/../metrics", "/docs/%2e%2e/metrics", "/docs/..%2fmetrics", "/docs%2f..%2fmetrics", "/docs/../mq"),
    *("/docs/", "//docs", "/openapi.json/", "//", "/.", "/..", "/nowhere", "/favicon.ico", "/redoc", "/asyncapi.json"),
    *("/gw/metrics", "/gw/mq", "/mq/", "//mq", "/MQ", "/mq/demo/", "/mq%2fdemo", "/mq/demo/Queues", "/mq/demo/Queues/"),
    *("/mq/demo/Exchanges/x", "/mq/demo/Queues/a%00", "/mq/demo/Queues/%ff", "/mq/demo/Queues/jobs/more"),
    *("/mq/demo/Queues/jobs?tiemout=1", "/mq/demo/Queues/jobs/events?x=1", "/mq?x=1", "/mq/demo?x=1"),
    *("/events", "/events?uri=x", "/events?x=1", "/session?x=1", "/session/", "/ticket?x=1", "/ticket/", "/peer"),
    *("/mq/demo/Queues/jobs/events?ticket=", "/mq/demo/Queues/jobs/events?ticket=x", "/metrics?ticket=x"),
    *("http://127.0.0.1/metrics", "HTTP://evil.example/metrics", "http://127.0.0.1//metrics", "http://127.0.0.1/mq"),
    *("https://127.0.0.1/mq/demo/Queues/jobs", "http://127.0.0.1/docs/../metrics", "*", "metrics", "\\metrics"),
    *("http:///metrics", "ftp://127.0.0.1/metrics", "/metrics#", "/?/metrics#"),
]


@pytest.mark.parametrize("root", ["", "/gw", "/mq", "/docs"])
async def test_no_spelling_of_a_path_leads_past_the_question(tmp_path: Path, root: str) -> None:
    found = []
    async with serving(auth=_auth(tmp_path), root_path=root) as served:
        for target in {*ODD, *(root + target for target in ODD if target.startswith("/"))}:
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                said = await _ask(served, method, target)
                if said.status not in _odd(target, root, method):
                    found.append(f"{method} {target}: {said.status}")
    assert found == []


def _odd(target: str, root: str, method: str) -> set[int]:
    """The server knows no target but a path and an absolute one; a folder of open pages has nothing but its files."""
    path = re.sub("^https?://[^/]+", "", target.partition("?")[0], flags=re.IGNORECASE)
    if not path.startswith("/") or "#" in target:
        return {400}
    paths = {path, path.removeprefix(root) or "/", root + path}
    if paths & OPEN_PAGES:
        return {200 if method in READING else 405}
    if (method, path.removeprefix(root)) == ("DELETE", "/session"):
        return {400}
    return {401, 404} if any(each.startswith("/docs/") for each in paths) else {401}


def _alike(said: Said, path: str, word: str) -> tuple[int, dict[str, str], dict[str, Any] | None]:
    """The answer without what is of one request only; `word` stands for what it asked for."""
    headers = {name: value for name, value in said.headers.items() if name not in ("x-request-id", "date")}
    if not said.body:
        return said.status, headers, None
    body = {name: value for name, value in said.json.items() if name != "request_id"}
    assert body.pop("instance") == path
    return said.status, headers, json.loads(json.dumps(body).replace(word, "…"))


def _hiding(folder: Path, *rules: dict[str, Any]) -> AbstractAsyncContextManager[Served]:
    return serving(auth=_auth(folder, hide_forbidden=True, policy=list(rules)))


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([], id="nothing"),
        pytest.param([{"principals": ["alice"], "allow": ["publish"], "uris": ["demo::Queues::lax"]}], id="another"),
    ],
)
async def test_what_is_hidden_is_told_as_what_is_not_there(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    async with _hiding(tmp_path, *rules) as served:
        for path in PATHS.values():
            for method in VERBS:
                if path in ("/mq", "/session") or method not in METHOD_FIRST.get(path, (method,)):
                    continue
                # As long as what is there, for the length of the answer.
                for names in (("jobs", "demo"), ("jobz", "demo"), ("jobs", "demi"), ("qqqq", "qqqq")):
                    target, there = next(_targets(path, *names)), next(_targets(path))
                    absent = await _ask(served, method, target, *ALICE)
                    hidden = await _ask(served, method, there, *ALICE)
                    assert hidden.status == 404, f"{method} {there}"
                    told = [
                        _alike(said, asked.partition("?")[0], word)
                        for said, asked, word in (
                            (absent, target, f"{names[1]}::Queues::{names[0]}"),
                            (hidden, there, "demo::Queues::jobs"),
                        )
                    ]
                    if path == "/mq/{service}":
                        told = [json.loads(json.dumps(each).replace(names[1], "demo")) for each in told]
                    assert told[0] == told[1], f"{method} {target}"


async def test_so_are_the_metrics(tmp_path: Path) -> None:
    async with _hiding(tmp_path) as served:
        for method in VERBS:
            there, absent = [
                _alike(await _ask(served, method, path, *ALICE), path, path) for path in ("/metrics", "/metricz")
            ]
            assert there == absent
            assert there[0] == 404


async def test_who_may_use_what_is_not_there_gets_the_same_members(tmp_path: Path) -> None:
    rule = {"principals": ["alice"], "allow": ["publish", "look"], "uris": ["demo::Queues::la*"]}
    async with _hiding(tmp_path, rule) as served:
        for method in ("GET", "POST"):
            allowed = await _ask(served, method, "/mq/demo/Queues/lay", *ALICE)
            hidden = await _ask(served, method, "/mq/demo/Queues/jobs", *ALICE)
            assert allowed.status == hidden.status == 404
            assert allowed.json.keys() == hidden.json.keys()
            assert allowed.headers.keys() == hidden.headers.keys()
            assert allowed.json["code"] == hidden.json["code"]
            # A near miss is named to who may see it, and nothing else is.
            assert "'lax'" in allowed.json["detail"]
            assert "did you mean" not in hidden.json["detail"]
