"""Host, Origin, Fetch Metadata and CORS."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from app.api.guard import Guard
from app.api.request_headers import RequestHeaders
from app.config.settings import Settings
from app.domain.errors import Forbidden

ORIGIN = "https://dash.example"


def _guard(**server: Any) -> Guard:
    return Guard(Settings.model_validate({"server": server}))


def _headers(**values: str) -> RequestHeaders:
    pairs = {"host": "127.0.0.1:8080", **{name.replace("_", "-"): value for name, value in values.items()}}
    return RequestHeaders([(name.encode(), value.encode("latin-1")) for name, value in pairs.items()])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "gw.localhost:1",
        "127.0.0.1",
        "127.8.9.10:8080",
        "[::1]:8080",
        "[::1]",
        "10.0.0.5:8080",
        "gw.example",
        "GW.Example:8443",
        "[2001:db8::1]:80",
    ],
)
def test_names_that_lead_here_by_right(host: str) -> None:
    guard = _guard(allowed_hosts=["gw.example", "[2001:db8::1]"])
    guard.check_host(_headers(host=host), "10.0.0.5")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "notlocalhost",
        "10.0.0.6",
        "169.254.169.254",
        "0.0.0.0",
        "",
        "evil@localhost",
        "localhost/evil",
        "localhost:port",
        "localhost:123456",
        "gw.example.evil.example",
        "2001:db8::1",
        "[::1",
        "[zz]",
        "\xe9",
    ],
)
def test_a_name_that_anybody_could_have_chosen_is_refused(host: str) -> None:
    guard = _guard(allowed_hosts=["gw.example"])
    with pytest.raises(Forbidden, match="allowed_hosts"):
        guard.check_host(_headers(host=host), "10.0.0.5")


def test_no_host_at_all_is_no_browser() -> None:
    _guard().check_host(RequestHeaders([]), None)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "X"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8081"},
        {"origin": "https://127.0.0.1"},
        {"origin": ORIGIN + ".evil.example"},
        {"origin": ORIGIN + ":8443"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example", "sec_fetch_site": "same-site"},
        # The page over http of what is served over https: of another origin and site, and a proxy hides that.
        {"origin": "http://gw.example", "host": "gw.example", "sec_fetch_site": "cross-site"},
        {"origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-site"},
        {"origin": "nonsense", "host": ""},
    ],
)
def test_a_page_from_elsewhere_changes_nothing(method: str, headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden, match="allowed_origins"):
        _guard(allowed_origins=[ORIGIN]).check_method(_headers(**headers), method)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": ORIGIN},
        {"origin": ORIGIN.upper()},
        {"origin": ORIGIN, "sec_fetch_site": "cross-site"},
        {"origin": "http://127.0.0.1:8080"},
        {"origin": "https://gw.example", "host": "gw.example"},
        {"origin": "https://gw.example", "host": "GW.example:443"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        # A proxy that changes the Host; the browser knows better and cannot be told what to say.
        {"origin": "https://public.example", "sec_fetch_site": "same-origin"},
    ],
)
def test_our_own_pages_listed_ones_and_programs_may(headers: dict[str, str]) -> None:
    guard = _guard(allowed_origins=[ORIGIN])
    guard.check_method(_headers(**headers), "POST")
    guard.check_queue_stream(_headers(**headers))


def test_an_origin_without_a_host_to_compare_is_foreign() -> None:
    with pytest.raises(Forbidden):
        _guard().check_method(RequestHeaders([(b"origin", b"http://127.0.0.1")]), "POST")


def test_reading_is_not_changing() -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        _guard().check_method(_headers(origin="https://evil.example"), method)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"origin": "https://evil.example"}, "take from a Queue"),
        ({"sec_fetch_site": "cross-site"}, "take from a Queue"),
        ({"sec_purpose": "prefetch;prerender"}, "prefetch"),
        ({"purpose": "prefetch"}, "prefetch"),
        ({"x_moz": "prefetch"}, "prefetch"),
        ({"sec_fetch_mode": "navigate"}, "as a page"),
    ],
)
def test_a_queue_is_not_read_by_accident(headers: dict[str, str], says: str) -> None:
    with pytest.raises(Forbidden, match=says):
        _guard().check_queue_stream(_headers(**headers))


def test_cors_names_the_origin_and_never_all() -> None:
    guard = _guard(allowed_origins=[ORIGIN])
    headers = dict(guard.cors(_headers(origin=ORIGIN)))
    assert headers[b"access-control-allow-origin"] == ORIGIN.encode()
    assert headers[b"access-control-allow-credentials"] == b"true"
    assert headers[b"vary"] == b"Origin"
    assert guard.cors(_headers(origin="https://evil.example")) == ((b"vary", b"Origin"),)
    assert guard.cors(_headers()) == ((b"vary", b"Origin"),)
    assert _guard().cors(_headers(origin=ORIGIN)) == ()


def test_a_preflight_gets_what_it_asked_for_of_what_may_be() -> None:
    headers = _headers(
        origin=ORIGIN,
        access_control_request_method="POST",
        access_control_request_headers="Authorization, mq-ttl-ms, ce-id, X-Evil, content-type",
    )
    extra = _guard(allowed_origins=[ORIGIN]).preflight(headers)
    assert extra is not None
    assert dict(extra)[b"access-control-allow-headers"] == b"authorization, mq-ttl-ms, ce-id, content-type"
    assert b"POST" in dict(extra)[b"access-control-allow-methods"]


def test_only_preflights_are_preflights() -> None:
    guard = _guard(allowed_origins=[ORIGIN])
    assert guard.preflight(_headers()) is None
    assert guard.preflight(_headers(origin=ORIGIN)) is None
    with pytest.raises(Forbidden):
        guard.preflight(_headers(origin="https://evil.example", access_control_request_method="POST"))


def test_with_authentication_any_name_may_lead_here() -> None:
    settings = Settings()
    auth = settings.auth.model_copy(update={"mode": "token"})
    Guard(settings.model_copy(update={"auth": auth})).check_host(_headers(host="any.example"), None)


@pytest.mark.parametrize(
    ("local", "host", "ours"),
    [
        ("::ffff:10.0.0.5", "10.0.0.5:8080", True),
        ("10.0.0.5", "[::ffff:10.0.0.5]", True),
        ("2001:db8::1", "[2001:DB8:0::1]:80", True),
        ("::", "[::ffff:127.0.0.1]", True),
        ("::", "10.0.0.5", False),
        ("/run/gateway.sock", "10.0.0.5", False),
        (None, "10.0.0.5", False),
    ],
)
def test_the_address_a_connection_came_in_on_is_ours(local: str | None, host: str, ours: bool) -> None:
    with nullcontext() if ours else pytest.raises(Forbidden):
        _guard().check_host(_headers(host=host), local)
