"""What a page of another origin may make a browser do here: nothing, whatever its name looks like."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.callers import Callers, bearer, cookie
from tests.e2e.crowd import Raw
from tests.e2e.http_client import Answer, Sse, ask, get_json
from tests.e2e.live_gateway import LiveGateway, write_config

FRIEND = "https://dash.example"
EVERYTHING = ["publish", "subscribe", "take", "look"]
DEMO: dict[str, Any] = {"mq_type": "Memory", "queues": {"jobs": {}, "other": {}}, "topics": {"news": {}}}
Headers = dict[str, str]


@dataclass
class Site:
    """A gateway that has FRIEND on its list, and by name what a browser could show it."""

    gateway: LiveGateway
    credentials: dict[str, Headers]

    @property
    def port(self) -> int:
        return self.gateway.port

    async def ask(self, method: str, target: str, headers: Headers, body: bytes | None = None) -> Answer:
        return await ask(self.port, method, target, body, headers)

    async def touched(self) -> tuple[int, int]:
        """How much was published to the Queue, and taken from it."""
        view = await get_json(self.port, "/mq/demo/Queues/jobs", self.gateway.headers)
        return view["published"], view["delivered"]


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Mode none."""
    server = {"allowed_origins": [FRIEND], "allowed_hosts": ["mq.example"]}
    config = write_config(tmp_path_factory.mktemp("open"), {"demo": DEMO}, server=server)
    with _served(config) as gateway:
        yield Site(gateway, {"nothing": {}})


@pytest.fixture(scope="module")
def _closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("closed")
    callers = Callers(folder)
    token = callers.add("alice")
    auth = callers.auth(policy=[{"principals": ["alice"], "allow": EVERYTHING, "uris": ["*"]}])
    config = write_config(folder, {"demo": DEMO}, auth=auth, server={"allowed_origins": [FRIEND]})
    with _served(config) as gateway:
        gateway.headers = bearer(token)
        signed_in = httpx.post(f"http://127.0.0.1:{gateway.port}/session", headers=bearer(token))
        value = signed_in.headers["set-cookie"].partition(";")[0].partition("=")[2]
        yield Site(gateway, {"nothing": {}, "bearer": bearer(token), "cookie": cookie(value)})


@pytest.fixture(params=["none", "token"])
def site(request: pytest.FixtureRequest) -> Site:
    """Either."""
    found: Site = request.getfixturevalue("open_site" if request.param == "none" else "_closed")
    return found


@pytest.fixture
def closed(_closed: Site) -> Site:
    """Mode token."""
    return _closed


@contextlib.contextmanager
def _served(config: Path) -> Iterator[LiveGateway]:
    gateway = LiveGateway(config)
    try:
        gateway.await_start()
        yield gateway
        assert gateway.problems() == []
    finally:
        gateway.kill()


# Origins (RFC 6454), as a browser or whoever plays one could send them.
FOREIGN = {
    "another site": "https://evil.example",
    "null of a sandbox or a file": "null",
    "nothing": "",
    "ours as its beginning": "https://dash.example.evil.example",
    "ours as its end": "https://evil-dash.example",
    "ours as its end without a separator": "https://evildash.example",
    "another port": "https://dash.example:8443",
    "another scheme": "http://dash.example",
    "a scheme that is none of the web": "chrome-extension://dash.example",
    "ours as user information": "https://dash.example@evil.example",
    "user information before ours": "https://evil@dash.example",
    "a Cyrillic letter": "https://d\u0430sh.example",
    "a Cyrillic letter in punycode": "https://xn--dsh-5cd.example",
    "a full-width dot": "https://dash\uff0eexample",
    "a dot at its end": "https://dash.example.",
    "below ours": "https://sub.dash.example",
    "above ours": "https://example",
    "a path behind it": "https://dash.example/",
    "a query behind it": "https://dash.example?",
    "a fragment behind it": "https://evil.example#https://dash.example",
    "a backslash": "https://evil.example\\dash.example",
    "two in one": "https://dash.example https://evil.example",
    "a list": "https://dash.example, https://evil.example",
    "any": "*",
    "a wildcard": "https://*.example",
    "no scheme": "dash.example",
    "this machine by another name": "http://localhost:{port}",
    "this machine by another port": "http://127.0.0.1:1",
    "this machine as its beginning": "http://127.0.0.1:{port}.evil.example",
    "this machine as user information": "http://127.0.0.1:{port}@evil.example",
}

#: What would change or take something: method, path, body.
UNSAFE = [
    ("POST", "/mq/demo/Queues/jobs", b"x"),
    ("POST", "/mq/demo/Queues/jobs/batch", b"1\n"),
    ("POST", "/mq/demo/Queues/jobs/receive?ack=auto", b""),
    ("POST", "/mq/demo/Queues/jobs/request", b"x"),
    ("POST", "/mq/demo/Queues/jobs/nack?lease=x", b""),
    ("POST", "/session", b""),
    ("DELETE", "/session", None),
    ("POST", "/ticket?uri=demo::Queues::jobs", b""),
    ("PUT", "/mq/demo/Queues/jobs", b"x"),
    ("GET", "/mq/demo/Queues/jobs/events", None),
    ("GET", "/events?uri=demo::Topics::news&uri=demo::Queues::jobs", None),
]
#: What a foreign page could make a browser ask, and must not read.
SAFE = [
    ("GET", "/mq"),
    ("GET", "/mq/demo/Queues/jobs"),
    ("GET", "/metrics"),
    ("GET", "/session"),
    ("GET", "/health/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/none"),
    ("HEAD", "/mq/demo/Topics/news/events"),
]


def _unreadable(answer: Answer) -> None:
    """No page but ours may read it, and no cache may give it to one."""
    told = {name for name in answer.headers if name.startswith("access-control-")}
    assert not told, answer
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_origin_changes_takes_and_reads_nothing(site: Site, origin: str) -> None:
    headers = {"Origin": origin.format(port=site.port)}
    before = await site.touched()
    for shown in site.credentials.values():
        for method, path, body in UNSAFE:
            answer = await site.ask(method, path, {**headers, **shown}, body)
            # Whoever is unknown may be told that first, which is as good.
            assert answer.status in ((403,) if method != "GET" or shown else (403, 401)), (method, path, answer)
            _unreadable(answer)
        for method, path in SAFE:
            _unreadable(await site.ask(method, path, {**headers, **shown}))
    assert await site.touched() == before


@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
async def test_no_preflight_of_a_foreign_origin_is_granted(site: Site, origin: str, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    for path in ("/mq/demo/Queues/jobs", "/session", "/ticket", "/"):
        answer = await site.ask("OPTIONS", path, {"Origin": origin.format(port=site.port), **asked})
        assert answer.status == 403, (path, answer)
        _unreadable(answer)


async def test_two_origins_are_none(site: Site) -> None:
    raw = await Raw.connect(site.port)
    head = f"POST /mq/demo/Queues/jobs HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nConnection: close\r\n"
    await raw.send(f"{head}Origin: {FRIEND}\r\nOrigin: https://evil.example\r\nContent-Length: 1\r\n\r\nx".encode())
    answer = await raw.rest()
    raw.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"access-control-allow-origin: https://evil" not in answer.lower()


FETCH_METADATA: dict[str, tuple[Headers, bool]] = {
    "cross-site without an origin": ({"Sec-Fetch-Site": "cross-site"}, False),
    "same-site without an origin": ({"Sec-Fetch-Site": "same-site"}, False),
    "cross-site, foreign": ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
    "same-site, foreign": ({"Sec-Fetch-Site": "same-site", "Origin": "https://evil.example"}, False),
    "nobody's page, foreign": ({"Sec-Fetch-Site": "none", "Origin": "https://evil.example"}, False),
    "in capitals, foreign": ({"Sec-Fetch-Site": "SAME-ORIGIN", "Origin": "https://evil.example"}, False),
    "navigated to, foreign": ({"Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"}, False),
    "cross-site, on the list": ({"Sec-Fetch-Site": "cross-site", "Origin": FRIEND}, True),
    "same-origin": ({"Sec-Fetch-Site": "same-origin"}, True),
    "no browser": ({}, True),
}


@pytest.mark.parametrize(("headers", "allowed"), FETCH_METADATA.values(), ids=FETCH_METADATA)
async def test_what_the_browser_says_of_the_page(site: Site, headers: Headers, allowed: bool) -> None:
    shown = site.credentials.get("bearer", {})
    answer = await site.ask("POST", "/mq/demo/Queues/other", {**headers, **shown}, b"x")
    assert answer.status == (200 if allowed else 403), answer


@pytest.mark.parametrize("way", ["nothing", "bearer", "cookie"])
async def test_the_cookie_is_for_our_own_pages_and_those_on_the_list(closed: Site, way: str) -> None:
    """An Origin that is ours is not enough without credentials."""
    for origin, statuses in ((f"http://127.0.0.1:{closed.port}", {200}), (FRIEND, {200})):
        # The client of these tests sends Host without its port.
        host = {"Origin": origin if origin == FRIEND else "http://127.0.0.1"}
        answer = await closed.ask("POST", "/mq/demo/Queues/other", {**host, **closed.credentials[way]}, b"x")
        assert answer.status in ({401} if way == "nothing" else statuses), answer


async def test_one_on_the_list_may_and_is_named(site: Site) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-evil,mq-type"}
    preflight = await site.ask("OPTIONS", "/mq/demo/Queues/other", {"Origin": FRIEND, **asked})
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization, mq-type"
    assert preflight.headers["vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    for shown in site.credentials.values():
        answer = await site.ask("POST", "/mq/demo/Queues/other", {"Origin": FRIEND, **shown}, b"x")
        for each in (preflight, answer):
            assert each.headers["access-control-allow-origin"] == FRIEND
            assert each.headers["access-control-allow-credentials"] == "true"
            assert "Origin" in each.headers["vary"]


# Names that are not ours and lead here all the same: DNS rebinding, with mode none.
REBOUND = {
    "another name": "evil.example",
    "another name with our port": "evil.example:{port}",
    "loopback as its beginning": "127.0.0.1.evil.example",
    "localhost as its beginning": "localhost.evil.example",
    "localhost as its end without a separator": "evillocalhost",
    "all addresses": "0.0.0.0",
    "all addresses of IPv6": "[::]",
    "one number": "2130706433",
    "hexadecimal": "0x7f000001",
    "octal": "0177.0.0.1",
    "shortened": "127.1",
    "another private address": "192.168.0.1",
    "metadata of a cloud": "169.254.169.254",
    "one on the list as its beginning": "mq.example.evil.example",
    "below one on the list": "sub.mq.example",
    "one on the list as user information": "mq.example%40evil.example",
    "an escaped letter": "loc%61lhost",
    "nothing": "",
    "only a port": ":{port}",
}


@pytest.mark.parametrize("host", REBOUND.values(), ids=REBOUND)
async def test_a_name_that_is_not_ours_leads_nowhere(open_site: Site, host: str) -> None:
    before = await open_site.touched()
    name = host.format(port=open_site.port)
    for request in (
        "POST /mq/demo/Queues/jobs", "GET /mq/demo/Queues/jobs/events", "GET /mq", "GET /", "GET /metrics",
        "GET /openapi.json", "OPTIONS /mq",
    ):  # fmt: skip
        raw = await Raw.connect(open_site.port)
        body = "Content-Length: 1\r\n\r\nx" if request.startswith("POST") else "\r\n"
        # A page that was rebound is of the same origin as we are, in its browser's eyes.
        page = f"Origin: http://{name}\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n"
        await raw.send(f"{request} HTTP/1.1\r\nHost: {name}\r\n{page}{body}".encode())
        answer = await raw.rest()
        raw.close()
        assert answer.startswith(b"HTTP/1.1 403 "), (request, answer)
        assert b"services" not in answer
    assert await open_site.touched() == before


OURS = ["localhost", "localhost.", "LOCALHOST", "app.localhost", "127.0.0.1", "127.8.9.10", "[::1]", "mq.example"]


@pytest.mark.parametrize("host", OURS)
async def test_a_name_that_is_ours_does(open_site: Site, host: str) -> None:
    raw = await Raw.connect(open_site.port)
    await raw.send(f"GET /mq HTTP/1.1\r\nHost: {host}:{open_site.port}\r\nConnection: close\r\n\r\n".encode())
    assert (await raw.rest()).startswith(b"HTTP/1.1 200 ")
    raw.close()


async def test_the_name_in_the_target_counts(open_site: Site) -> None:
    raw = await Raw.connect(open_site.port)
    await raw.send(b"GET http://evil.example/mq HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await raw.rest()).startswith(b"HTTP/1.1 403 ")
    raw.close()


UNMEANT: dict[str, Headers] = {
    "a prefetch": {"Sec-Purpose": "prefetch"},
    "a prerendered page": {"Sec-Purpose": "prefetch;prerender"},
    "a prefetch as it was said before": {"Purpose": "prefetch"},
    "a prefetch of Firefox": {"X-Moz": "prefetch"},
    "a link that is opened": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"},
    "a link of our own": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"},
    "a frame": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "same-origin"},
    "an image of another site": {
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "image",
        "Sec-Fetch-Site": "cross-site",
    },
}


@pytest.mark.parametrize("headers", UNMEANT.values(), ids=UNMEANT)
async def test_nothing_is_taken_that_nobody_meant_to_read(site: Site, headers: Headers) -> None:
    before = await site.touched()
    for shown in [site.credentials.get("bearer", {}), site.credentials.get("cookie", {})]:
        for path in ("/mq/demo/Queues/jobs/events", "/events?uri=demo::Queues::jobs"):
            assert (await site.ask("GET", path, {**headers, **shown})).status == 403
    assert await site.touched() == before


# Headers of every answer, be it a refusal.
ANSWERS = [
    ("GET", "/mq", 200), ("GET", "/mq/demo", 200), ("GET", "/mq/demo/Queues/jobs", 200), ("GET", "/metrics", 200),
    ("GET", "/health/live", 200), ("GET", "/health/ready", 200), ("GET", "/none", 404), ("GET", "/mq/none", 404),
    ("POST", "/mq/demo/Queues/other", 200), ("POST", "/mq/demo/Queues/other/batch", 200), ("PUT", "/mq", 405),
    ("POST", "/mq/demo/Queues/other/receive", 200), ("HEAD", "/mq", 200), ("GET", "/mq/%00", 404),
    ("POST", "/mq/demo/Queues/jobs/receive", 204), ("CONNECT", "/mq", 405), ("GET", "*", 400),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS, ids=[f"{each[0]} {each[1]}" for each in ANSWERS])
async def test_an_answer_that_is_opened_runs_nothing(site: Site, method: str, path: str, status: int) -> None:
    body = b"1\n" if method == "POST" else None
    more = {"Content-Type": "application/x-ndjson"} if path.endswith("/batch") else {}
    if path.endswith("/receive"):
        body = b""
    answer = await site.ask(method, path, {**site.credentials.get("bearer", {}), **more}, body)
    assert answer.status in (status, 400 if status == 404 else status), answer
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert _policy(answer)["frame-ancestors"] == {"'none'"}
    assert "html" not in answer.headers.get("content-type", "")


async def test_a_message_that_is_a_page_runs_nothing(site: Site) -> None:
    shown = site.credentials.get("bearer", {})
    page = b"<script>fetch('/mq/demo/Queues/jobs', {method: 'POST'})</script>"
    target = "/mq/demo/Queues/other"
    await site.ask("POST", f"{target}/receive?max=100&ack=auto", shown, b"")  # what other tests left
    assert (await site.ask("POST", target, {**shown, "Content-Type": "text/html"}, page)).status == 200
    accept = {**shown, "Accept": "application/octet-stream"}
    answer = await site.ask("POST", f"{target}/receive?ack=auto", accept, b"")
    assert (answer.status, answer.body) == (200, page)
    assert _policy(answer)["sandbox"] == set()
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_event_stream_is_no_document(site: Site) -> None:
    async with await Sse.open(site.port, "/mq/demo/Topics/news/events", site.credentials.get("bearer")) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-content-type-options"] == "nosniff"
        assert "no-store" in stream.headers["cache-control"]
        assert "frame-ancestors 'none'" in stream.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_runs_our_own_scripts_and_is_framed_by_nobody(site: Site, path: str) -> None:
    answer = await site.ask("GET", path, {})
    policy = _policy(answer)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == {"'none'"}
    assert policy["script-src"] == policy["connect-src"] == {"'self'"}
    assert policy["form-action"] == {"'none'"}
    for sources in policy.values():
        assert sources <= {"'none'", "'self'", "data:", "'unsafe-inline'"}
    assert [name for name, sources in policy.items() if "'unsafe-inline'" in sources] == ["style-src"]
    assert "data:" not in policy["script-src"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    html = answer.body.decode()
    assert not re.search(r"<script(?![^>]* src=)|\bon\w+=|javascript:", html)
    assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", html)


def _policy(answer: Answer) -> dict[str, set[str]]:
    parts = [part.split() for part in answer.headers["content-security-policy"].split(";") if part.strip()]
    return {name: set(sources) for name, *sources in parts}
