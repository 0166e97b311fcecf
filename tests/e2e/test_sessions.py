"""Sessions of browsers: what the cookie is, what opens none, and what ends one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from app.auth.sessions import COOKIE
from app.config.settings import Settings
from app.main import create_app
from tests.e2e.callers import REVOKED_WITHIN, Callers, bearer, cookie, known
from tests.e2e.http_gateway import DEMO, Served, serving

EVENTS = "/mq/demo/Topics/events/events"
JOBS = "/mq/demo/Queues/jobs"
SECRET = b"a secret that two processes have"


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
async def served(callers: Callers) -> AsyncIterator[Served]:
    async with serving(auth=callers.auth()) as gateway:
        yield gateway


@pytest.fixture
async def alice(callers: Callers) -> str:
    return callers.add("alice")


async def _sign_in(served: Served, token: str) -> str:
    """The cookie's value. httpx itself would keep it, and send it where a test wants none."""
    await known(served.client, token)
    answer = await served.client.post("/session", headers=bearer(token))
    served.client.cookies.clear()
    assert answer.status_code == 200, answer.text
    return answer.headers["set-cookie"].partition(";")[0].removeprefix(f"{COOKIE}=")


async def _dead(served: Served, value: str) -> httpx.Response:
    """Wait until the session is over."""
    async with asyncio.timeout(REVOKED_WITHIN):
        while True:
            answer = await served.client.get("/session", headers=cookie(value))
            if answer.status_code != 200:
                return answer
            await asyncio.sleep(0.05)


# What it is.


async def test_the_cookie_is_for_this_very_host_and_for_no_script(served: Served, alice: str) -> None:
    await known(served.client, alice)
    answer = await served.client.post("/session", headers=bearer(alice))
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)
    assert len(name) < 4096
    assert alice not in answer.text + answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == "no-store"


async def test_whoever_has_it_is_who_signed_in(served: Served, alice: str) -> None:
    value = await _sign_in(served, alice)
    answer = await served.client.get("/session", headers=cookie(value))
    assert (answer.status_code, answer.json()["principal"]) == (200, "alice")
    published = await served.client.post(JOBS, content=b"{}", headers=cookie(value) | {"content-type": "text/plain"})
    assert published.status_code == 200


async def test_no_session_begets_another(served: Served, alice: str) -> None:
    value = await _sign_in(served, alice)
    answer = await served.client.post("/session", headers=cookie(value))
    assert (answer.status_code, "set-cookie" in answer.headers) == (400, False)


async def test_signing_out_ends_what_the_cookie_names_whoever_else_asks(served: Served, alice: str) -> None:
    value = await _sign_in(served, alice)
    for headers in (bearer(alice), {"Authorization": "Basic eDp5"}):
        again = await _sign_in(served, alice)
        answer = await served.client.delete("/session", headers=cookie(again) | headers)
        assert answer.status_code == 204
        assert (await served.client.get("/session", headers=cookie(again))).status_code == 401
    assert (await served.client.get("/session", headers=cookie(value))).status_code == 200, "another one's goes on"


async def test_only_a_token_opens_one(served: Served) -> None:
    answer = await served.client.post("/session")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    answer = await served.client.post("/session", headers=bearer("mqg_" + "a" * 43))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


@contextlib.asynccontextmanager
async def _from(address: str, scheme: str, auth: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings.model_validate({"services": {"demo": DEMO}, "auth": auth}))
    transport = httpx.ASGITransport(app, client=(address, 40000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=f"{scheme}://gateway.example") as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("address", "scheme", "status"),
    [
        ("203.0.113.9", "http", 400),
        ("203.0.113.9", "https", 200),
        ("127.0.0.1", "http", 200),
        ("::1", "http", 200),
        ("::ffff:127.0.0.1", "http", 200),
        ("::ffff:203.0.113.9", "http", 400),
        ("", "http", 400),
        ("localhost", "http", 400),
    ],
)
@pytest.mark.parametrize("path", ["/session", "/ticket?uri=demo::Topics::events"])
async def test_over_a_network_only_with_tls(
    callers: Callers, alice: str, path: str, address: str, scheme: str, status: int
) -> None:
    async with _from(address, scheme, callers.auth()) as client:
        answer = await client.post(path, headers=bearer(alice))
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["code"] == "https_required"
        assert "set-cookie" not in answer.headers


# What is none.


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _said(value: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(value, options={"verify_signature": False})
    return said


async def test_whatever_is_not_ours_opens_nothing(served: Served, alice: str) -> None:
    value = await _sign_in(served, alice)
    said = _said(value)
    head, body, signature = value.split(".")
    forged = {
        "another key": jwt.encode(said, b"k" * 32, "HS256"),
        "no signature": f"{head}.{body}.",
        "alg none": f"{_part({'alg': 'none'})}.{body}.",
        "alg None with the signature": f"{_part({'alg': 'None'})}.{body}.{signature}",
        "another algorithm": jwt.encode(said, b"k" * 64, "HS512"),
        "tampered": f"{head}.{_part(said | {'sub': 'carol', 'label': 'carol'})}.{signature}",
        "longer": f"{head}.{_part(said | {'exp': said['exp'] + 1e6})}.{signature}",
        "nothing": "",
        "dots": "..",
        "no text": "\xff\xfe",
        "long": "a" * 6000,
        "deep": "e30.W" + "1tb" * 1200 + ".e30",
    }
    for name, text in forged.items():
        raw = b"GET /session HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: " + COOKIE.encode() + b"="
        answer = await served.raw(raw + text.encode("latin-1") + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 "), (name, answer)
        assert body.encode() not in answer, name
    assert (await served.client.get("/session", headers=cookie(value))).status_code == 200


async def test_an_empty_key_signs_nothing(served: Served, alice: str) -> None:
    signed = (await _sign_in(served, alice)).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(b"", signed.encode(), "sha256")).rstrip(b"=").decode()
    assert (await served.client.get("/session", headers=cookie(f"{signed}.{signature}"))).status_code == 401


async def test_one_that_is_over_opens_nothing(callers: Callers, alice: str) -> None:
    async with serving(auth=callers.auth(session_seconds=0.3)) as served:
        value = await _sign_in(served, alice)
        answer = await _dead(served, value)
    assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)


async def test_of_two_cookies_of_the_name_none_counts(served: Served, callers: Callers, alice: str) -> None:
    own, planted = await _sign_in(served, alice), await _sign_in(served, callers.add("carol"))
    for text in (
        f"{COOKIE}={own}; {COOKIE}={planted}",
        f"{COOKIE}={planted}; a=b; {COOKIE}={own}",
        f"{COOKIE}={own}; {COOKIE}=",
    ):
        assert (await served.client.get("/session", headers={"Cookie": text})).status_code == 401
    two = [("Cookie", f"{COOKIE}={own}"), ("Cookie", f"{COOKIE}={planted}")]
    assert (await served.client.get("/session", headers=two)).status_code == 401
    others = {"Cookie": f"theme=dark; x{COOKIE}={planted}; {COOKIE}={own}; {COOKIE.lower()}={planted}"}
    assert (await served.client.get("/session", headers=others)).json()["principal"] == "alice"


async def test_a_ticket_is_no_cookie_and_a_cookie_no_ticket(served: Served, alice: str) -> None:
    value = await _sign_in(served, alice)
    made = await served.client.post("/ticket?uri=demo::Topics::events", headers=bearer(alice))
    ticket = made.json()["ticket"]
    assert (await served.client.get("/session", headers=cookie(ticket))).status_code == 401
    assert (await served.client.get("/session", headers=bearer(ticket))).status_code == 401
    assert (await served.client.get("/session", headers=bearer(value))).status_code == 401
    assert (await served.client.get(f"{EVENTS}?ticket={value}")).status_code == 401


async def test_credentials_that_are_shown_are_not_replaced_by_the_cookie(served: Served, alice: str) -> None:
    """A request that says who it is, and is wrong, is nobody's: not silently the cookie's."""
    value = await _sign_in(served, alice)
    wrong = bearer("mqg_" + "b" * 43)
    assert (await served.client.get("/session", headers=cookie(value) | wrong)).status_code == 401
    basic = {"Authorization": "Basic YWxpY2U6eA=="}
    assert (await served.client.get("/session", headers=cookie(value) | basic)).status_code == 401


# What ends it.


async def test_signing_out_ends_open_streams_too(served: Served, alice: str) -> None:
    value, other = await _sign_in(served, alice), await _sign_in(served, alice)
    async with (
        served.stream(EVENTS, headers=cookie(value)) as mine,
        served.stream(EVENTS, headers=cookie(other)) as another,
    ):
        await mine.next()
        await another.next()
        answer = await served.client.delete("/session", headers=cookie(value))
        assert answer.status_code == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        async with asyncio.timeout(REVOKED_WITHIN):
            await mine.rest()
        assert (await served.client.get("/session", headers=cookie(value))).status_code == 401
        # Another session of the same caller goes on.
        await served.client.post("/mq/demo/Topics/events", content=b"1", headers=bearer(alice))
        assert (await another.message()).data == "1"
    assert served.metric("mq_gateway_streams_closed_total", reason="revoked") == 1


async def test_it_dies_with_its_token(served: Served, callers: Callers, alice: str) -> None:
    value = await _sign_in(served, alice)
    callers.revoke("alice")
    answer = await _dead(served, value)
    assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)
    callers.add("alice")
    assert (await served.client.get("/session", headers=cookie(value))).status_code == 401, "another token of the name"


async def test_it_ends_no_later_than_its_token(served: Served, callers: Callers) -> None:
    token = callers.add("carol", seconds=3.0)
    await known(served.client, token)
    answer = await served.client.post("/session", headers=bearer(token))
    served.client.cookies.clear()
    assert int(answer.headers["set-cookie"].partition("Max-Age=")[2].partition(";")[0]) <= 3
    value = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    assert (await _dead(served, value)).status_code == 401


async def test_a_token_that_is_to_end_sooner_ends_its_session_sooner(
    served: Served, callers: Callers, alice: str
) -> None:
    value = await _sign_in(served, alice)
    async with served.stream(EVENTS, headers=cookie(value)) as events:
        await events.next()
        ends = float(int(time.time()) + 3)
        callers.change("alice", expires_at=ends)
        async with asyncio.timeout(ends - time.time() + 2):
            await events.rest()
        assert time.time() >= ends - 0.1
    assert (await served.client.get("/session", headers=cookie(value))).status_code == 401


async def test_a_token_that_is_somebody_elses_now_keeps_no_session(
    served: Served, callers: Callers, alice: str
) -> None:
    value = await _sign_in(served, alice)
    callers.change("alice", principal="bob")
    assert (await _dead(served, value)).status_code == 401
    assert (await served.client.get("/session", headers=bearer(alice))).json()["principal"] == "bob"


async def test_a_group_that_is_taken_from_the_token_is_taken_from_the_session(served: Served, callers: Callers) -> None:
    token = callers.add("dave", "readers")
    value = await _sign_in(served, token)
    async with served.stream(EVENTS, headers=cookie(value)) as events:
        await events.next()
        callers.change("dave", groups=())
        async with asyncio.timeout(REVOKED_WITHIN):
            await events.rest()
    answer = await served.client.get(EVENTS, headers=cookie(value))
    assert answer.status_code == 403
    assert (await served.client.get("/session", headers=cookie(value))).json()["groups"] == []


# Who may use it.


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://sub.127.0.0.1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
    ],
)
async def test_a_page_from_elsewhere_changes_nothing(served: Served, alice: str, headers: dict[str, str]) -> None:
    value = await _sign_in(served, alice)
    own = {name: text.format(host=f"127.0.0.1:{served.port}") for name, text in headers.items()}
    sent = cookie(value) | own
    for method, path in (
        ("POST", JOBS),
        ("POST", f"{JOBS}/receive"),
        ("POST", f"{JOBS}/ack?lease=x"),
        ("POST", "/ticket?uri=demo::Topics::events"),
        ("DELETE", "/session"),
        ("POST", "/session"),
    ):
        answer = await served.client.request(method, path, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    assert (await served.client.get("/session", headers=cookie(value))).status_code == 200
    assert (await served.client.get(f"{JOBS}/events", headers=sent)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://{host}"},
        {"Origin": "https://before.proxy", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_its_own_page_does(served: Served, alice: str, headers: dict[str, str]) -> None:
    value = await _sign_in(served, alice)
    own = {name: text.format(host=f"127.0.0.1:{served.port}") for name, text in headers.items()}
    answer = await served.client.post(JOBS, content=b"1", headers=cookie(value) | own)
    assert answer.status_code == 200


# Several processes.


async def test_whoever_has_the_secret_takes_the_session(callers: Callers, alice: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    shared = callers.auth(secret_file=str(secret))
    async with serving(auth=shared) as one, serving(auth=shared) as two, serving(auth=callers.auth()) as alone:
        value = await _sign_in(one, alice)
        assert (await two.client.get("/session", headers=cookie(value))).json()["principal"] == "alice"
        assert (await alone.client.get("/session", headers=cookie(value))).status_code == 401
        forged = jwt.encode(_said(value), SECRET, "HS256")
        assert (await two.client.get("/session", headers=cookie(forged))).status_code == 401, "the secret is no key"


async def test_where_nobody_is_asked_nobody_signs_in() -> None:
    async with serving() as served:
        assert (await served.client.post("/session")).status_code == 404
        assert (await served.client.post("/ticket?uri=demo::Topics::events")).status_code == 404
