"""HTTP/1.1 read from a connection: what reaches the application, and what never does."""

from __future__ import annotations

from collections.abc import Iterator

import httptools
import pytest

from app.http1 import protocol
from tests.e2e.serving import PATIENCE, Served, segments, serving

HOST = b"Host: 127.0.0.1\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with serving() as served:
        yield served


def _post(*headers: bytes, body: bytes = b"", path: bytes = b"/echo") -> bytes:
    lines = b"".join(each + b"\r\n" for each in headers)
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body


UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
INNER = b"DELETE /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"%x\r\n" % len(INNER) + INNER + b"\r\n5;x=y\r\nwhole\r\n0\r\nTrailer: t\r\n\r\n"
WISHES = {
    "h2c": UPGRADE,
    "h2c and close": (b"Connection: close, Upgrade", b"Upgrade: h2c"),
    "websocket": (b"Connection: upgrade", b"Upgrade: websocket"),
    "several": (b"Connection: keep-alive", b"connection: UPGRADE", b"Upgrade: h2c", b"Upgrade: foo"),
    "none": (),
}


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES.keys())
@pytest.mark.parametrize("chunked", [False, True])
def test_a_wish_for_another_protocol_leaves_the_body_where_it_belongs(
    shared: Served, size: int, wish: tuple[bytes, ...], chunked: bool
) -> None:
    before = len(shared.app.seen)
    framing, body = (
        (b"Transfer-Encoding: chunked", CHUNKED)
        if chunked
        else (b"Content-Length: %d" % len(INNER + b"whole"), INNER + b"whole")
    )
    with shared.connect() as client:
        client.send(*segments(_post(*wish, framing, body=body), size))
        response = client.response()
        assert (response.status, response.body) == (200, INNER + b"whole")
        if b"close" not in b"".join(wish):
            client.send(NEXT)
            assert client.response().status == 200
    paths = [seen.path for seen in shared.app.seen[before:]]
    assert paths == (["/echo"] if b"close" in b"".join(wish) else ["/echo", "/next"])
    names = {name for name, _ in shared.app.seen[before].headers}
    assert not names & {b"upgrade", b"http2-settings"}
    assert shared.app.seen[before].complete


@pytest.mark.parametrize("size", [1, 50, 100_000])
def test_a_wish_in_the_middle_of_a_pipeline_changes_nothing(shared: Served, size: int) -> None:
    before = len(shared.app.seen)
    first = _post(*UPGRADE, b"Content-Length: 5", body=b"first")
    second = _post(*UPGRADE, b"Transfer-Encoding: chunked", body=b"6\r\nsecond\r\n0\r\n\r\n")
    with shared.connect() as client:
        client.send(*segments(first + second + NEXT + first, size))
        assert [client.response().body for _ in range(4)] == [b"first", b"second", b"", b"first"]
    assert [seen.path for seen in shared.app.seen[before:]] == ["/echo", "/echo", "/next", "/echo"]


def test_a_head_is_judged_with_a_wish_as_without_one(shared: Served) -> None:
    response = shared.ask(_post(*UPGRADE, *(b"X-%d: a" % number for number in range(128))))
    assert (response.status, response.problem["code"]) == (431, "headers_too_large")


def test_connection_options_besides_the_wish_are_kept(shared: Served) -> None:
    shared.ask(_post(b"Connection: Upgrade, X-Other", b"Upgrade: h2c", b"X-Other: 1"))
    headers = dict(shared.app.seen[-1].headers)
    assert headers[b"connection"] == b"X-Other"
    assert headers[b"x-other"] == b"1"


@pytest.mark.parametrize("wish", [UPGRADE, ()], ids=["h2c", "none"])
@pytest.mark.parametrize(
    ("framing", "part"),
    [
        (b"Content-Length: 10", b"half"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n0\r\n"),
        (b"Transfer-Encoding: chunked", b"9\r\nhalf"),
    ],
)
def test_half_a_body_is_never_a_whole_one(shared: Served, framing: bytes, part: bytes, wish: tuple[bytes, ...]) -> None:
    before = len(shared.app.seen)
    with shared.connect() as client:
        client.send(_post(*wish, framing, body=part))
        seen = shared.arrived(before)
    assert seen.done.wait(PATIENCE)
    assert (seen.complete, seen.gone) == (False, True)


SMUGGLING = {
    "length and chunks": _post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": _post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two lengths": _post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "one length twice": _post(b"Content-Length: 2", b"Content-Length: 2", body=b"ab"),
    "list of lengths": _post(b"Content-Length: 2, 2", body=b"ab"),
    "signed length": _post(b"Content-Length: +2", body=b"ab"),
    "hex length": _post(b"Content-Length: 0x2", body=b"ab"),
    "huge length": _post(b"Content-Length: 99999999999999999999", body=b"ab"),
    "coding before chunked": _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding after chunked": _post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "chunked twice": _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "unknown coding": _post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "vertical tab": _post(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n"),
    "space before colon": _post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": _post(b"X-A: b\r\n c"),
    "fold after the request line": b"POST /echo HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LF": b"POST /echo HTTP/1.1\nHost: a\n\n",
    "bare LF in a header": _post(b"X-A: b\nX-C: d"),
    "bare CR in a header": _post(b"X-A: b\rX-C: d"),
    "NUL in a header": _post(b"X-A: b\x00c"),
    "header without a name": _post(b": b"),
    "no Host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /echo HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a list as Host": b"GET /echo HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a URL as Host": b"GET /echo HTTP/1.1\r\nHost: http://a/\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "fragment": b"GET /echo#x HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw UTF-8 in the path": "GET /é HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "unknown method": b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    "long target": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "broken wish": _post(*UPGRADE, b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
}


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("raw", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_two_readers_could_read_differently_is_refused(shared: Served, raw: bytes, size: int) -> None:
    if size == 1 and len(raw) > 1000:
        size = 1000
    before = len(shared.app.seen)
    with shared.connect() as client:
        client.sock.sendall(raw) if size > len(raw) else client.send(*segments(raw, size))
        response = client.response()
        assert response.status == 400
        assert response.problem["code"] == "malformed_request"
        assert response.problem["retriable"] is False
        assert response.headers["connection"] == "close"
        assert client.rest() == b""
    assert all(not seen.complete for seen in shared.app.seen[before:])


def test_an_absolute_target_overrules_the_host(shared: Served) -> None:
    shared.ask(b"GET http://real:80/echo?q=1 HTTP/1.1\r\nHost: other\r\nX-A: b \r\n\r\n")
    seen = shared.app.seen[-1]
    assert seen.headers == [(b"x-a", b"b"), (b"host", b"real:80")]
    assert (seen.path, seen.scope["raw_path"], seen.scope["query_string"]) == ("/echo", b"/echo", b"q=1")


def test_trailers_do_not_become_headers(shared: Served) -> None:
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    assert shared.ask(_post(b"Transfer-Encoding: chunked", body=body)).body == b"abc"
    assert {name for name, _ in shared.app.seen[-1].headers} == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize("path", [b"/mq/a%2Fb", b"/gw/mq/a%2Fb"])
def test_the_prefix_of_a_proxy_may_be_there_or_not(path: bytes) -> None:
    with serving(root_path="/gw") as served:
        assert served.ask(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n").status == 200
        scope = served.app.seen[0].scope
        assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/gw/mq/a/b", b"/gw/mq/a%2Fb", "/gw")


def test_a_large_body_comes_whole(shared: Served) -> None:
    body = bytes(range(256)) * 16_384
    assert shared.ask(_post(b"Content-Length: %d" % len(body), body=body)).body == body


def test_a_defect_in_a_callback_is_logged_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    error = httptools.HttpParserCallbackError("callback")
    error.__context__ = LookupError("a defect")
    assert protocol._complaint(error).status == 400
    assert "a defect" in caplog.text


SAID = (b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: 203.0.113.7, 127.0.0.9", b"X-Forwarded-Proto: https")


def test_a_trusted_proxy_says_who_asks() -> None:
    with serving(trusted_proxies=["127.0.0.0/8"]) as served:
        served.ask(_post(*SAID))
        scope = served.arrived().scope
        assert (scope["client"], scope["scheme"]) == (("203.0.113.7", 0), "https")
        seam = scope["extensions"]["mq_gateway"]
        assert (seam["peer"], seam["proxy"]) == ("127.0.0.1", True)
        served.ask(NEXT)
        scope = served.arrived(1).scope
        assert (scope["client"], scope["scheme"]) == (("127.0.0.1", 0), "http")


@pytest.mark.parametrize("proxies", [[], ["10.0.0.0/8"]])
def test_from_anybody_else_it_is_ignored(proxies: list[str]) -> None:
    with serving(trusted_proxies=proxies) as served:
        served.ask(_post(*SAID, b"Forwarded: for=1.2.3.4;proto=https"))
        scope = served.arrived().scope
        assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")
        assert scope["client"][1] != 0
        seam = scope["extensions"]["mq_gateway"]
        assert (seam["peer"], seam["proxy"]) == ("127.0.0.1", False)
