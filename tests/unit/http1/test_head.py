"""The head of a request as values."""

from __future__ import annotations

import pytest

from app.domain.errors import Code
from app.http1.head import Target, examine, read_target, without_upgrade
from app.http1.refusal import Refused
from app.http1.rules import Rules

RULES = Rules(
    head_lines=4,
    head_bytes=300,
    line_bytes=100,
    header_timeout=1,
    idle_timeout=1,
    write_timeout=1,
    connections=1,
)
ROOT = Target(b"/", "/", b"")
HOST = (b"host", b"a")


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (b"/", Target(b"/", "/", b"")),
        (b"/mq/a/Queues/b%2Fc%20d?x=%2F&y=?", Target(b"/mq/a/Queues/b%2Fc%20d", "/mq/a/Queues/b/c d", b"x=%2F&y=?")),
        (b"//evil/x", Target(b"//evil/x", "//evil/x", b"")),
        (b"http://host:80/p?q", Target(b"/p", "/p", b"q", b"host:80")),
        (b"HTTPS://[::1]:80", Target(b"/", "/", b"", b"[::1]:80")),
        (b"http://host?q", Target(b"/", "/", b"q", b"host")),
    ],
)
def test_a_target_is_a_path_or_a_url(raw: bytes, target: Target) -> None:
    assert read_target(raw) == target


@pytest.mark.parametrize(
    "raw",
    [b"*", b"", b"a", b"host:80", b"ftp://h/", b"http:///x", b"http://u@h/", b"/#", b"/" + b"a" * 32768],
)
def test_anything_else_is_no_target(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_target(raw)
    assert (refused.value.status, refused.value.code) == (400, Code.MALFORMED_REQUEST)


@pytest.mark.parametrize(
    ("version", "headers", "expects"),
    [
        ("1.1", [HOST], False),
        ("1.1", [(b"host", b"")], False),
        ("1.1", [(b"host", b"[::1]:8080")], False),
        ("1.0", [], False),
        ("1.0", [HOST], False),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")], False),
        ("1.1", [HOST, (b"expect", b"100-Continue")], True),
        ("1.0", [HOST, (b"expect", b"100-continue")], False),
        ("1.1", [HOST, (b"a", b"b"), (b"c", b"d"), (b"e", b"f")], False),
        ("1.1", [HOST, (b"a", b"b" * 99)], False),
        ("1.1", [HOST, (b"mq-headers", b"b" * 200)], False),
    ],
)
def test_a_head_within_the_rules(version: str, headers: list[tuple[bytes, bytes]], expects: bool) -> None:
    assert examine(version, ROOT, headers, RULES) is expects


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("0.9", [], 400),
        ("2.0", [HOST], 400),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("1.1", [(b"host", b"a b")], 400),
        ("1.1", [(b"host", b"a/b")], 400),
        ("1.1", [(b"host", b"u@a")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"expect", b"miracles")], 400),
        ("1.1", [HOST, (b"a", b""), (b"b", b""), (b"c", b""), (b"d", b"")], 431),
        ("1.1", [HOST, (b"a", b"b" * 100)], 431),
        ("1.1", [HOST, (b"mq-headers", b"b" * 300)], 431),
        ("1.1", [HOST, (b"a", b"b" * 99), (b"c", b"d" * 99), (b"e", b"f" * 99)], 431),
    ],
)
def test_a_head_against_the_rules(version: str, headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(Refused) as refused:
        examine(version, ROOT, headers, RULES)
    assert refused.value.status == status
    assert refused.value.code == {400: Code.MALFORMED_REQUEST, 431: Code.HEADERS_TOO_LARGE}[status]


def test_the_target_counts_as_part_of_the_head() -> None:
    with pytest.raises(Refused, match="longer than 300 bytes"):
        examine("1.1", Target(b"/" * 200, "", b"q" * 101), [HOST], RULES)


def test_the_wish_for_another_protocol_is_taken_out() -> None:
    headers = [
        HOST,
        (b"connection", b"Upgrade , close,HTTP2-Settings,, X-Kept"),
        (b"connection", b"upgrade"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAM"),
        (b"content-length", b"3"),
    ]
    assert without_upgrade("1.1", b"POST", b"/a?b", headers) == (
        b"POST /a?b HTTP/1.1\r\nhost: a\r\nconnection: close, X-Kept\r\ncontent-length: 3\r\n\r\n"
    )


def test_a_tunnel_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        without_upgrade("1.1", b"CONNECT", b"a:1", [])
    assert refused.value.status == 405
    assert dict(refused.value.headers)[b"allow"]
