"""One gateway as seen from outside."""

from __future__ import annotations

import httpx
import pytest

from app.client import connection
from app.client.connection import (
    ClientError,
    Target,
    check_token,
    check_url,
    parse_object,
    printable,
    read_answer,
    refusal,
    unreachable,
)
from app.domain.uri import MqUri

_TARGET = Target("https://gw.example/prefix/", "hunter2")


def test_every_part_of_a_destination_is_encoded() -> None:
    uri = MqUri.parse("a.b::Queues::c/d é%")
    assert _TARGET.resource(uri, "events") == "https://gw.example/prefix/mq/a.b/Queues/c%2Fd%20%C3%A9%25/events"


def test_the_token_goes_into_a_header_and_nowhere_else() -> None:
    assert _TARGET.headers() == {"authorization": "Bearer hunter2"}
    assert Target("http://x").headers() == {}
    assert "hunter2" not in repr(_TARGET)
    assert _TARGET.origin == "https://gw.example"


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost", False),
        ("http://gw.example", True),
        ("http://10.0.0.1", True),
    ],
)
def test_this_very_machine_is_not_reached_through_a_proxy(url: str, *, proxied: bool) -> None:
    with Target(url).open(1.0) as client:
        assert client.trust_env is proxied
        assert client.timeout == httpx.Timeout(1.0, connect=connection.CONNECT_SECONDS)


@pytest.mark.parametrize("url", ["https://127.0.0.1:8080", "https://gw.example"])
def test_a_file_of_authorities_that_is_none_is_one_sentence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a file is good for is in tests/e2e/test_tls.py."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ClientError, match="SSL_CERT_FILE cannot be used: No such file"):
        Target(url).open(1.0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://gw.example/prefix"])
def test_urls(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", ["gw.example", "ftp://x", "http://", "http://u:p@x", "http://x?a=b", "http://x:y", ""])
def test_what_is_no_url_of_a_gateway(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|is not"):
        check_url(url)


def test_tokens() -> None:
    assert check_token("abc.DEF") == "abc.DEF"
    for wrong in ("a b", "a\n", "é"):
        with pytest.raises(ValueError, match="visible ASCII") as caught:
            check_token(wrong)
        assert wrong not in str(caught.value)


def test_what_a_stranger_says_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2J\nb") == "a [2J b"
    assert "\x1b" not in str(ClientError("\x1b[2J"))


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(body), headers=headers)


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ('"not_sent"', "503 overloaded: full (nothing was sent)"),
        ('"rejected"', "503 overloaded: full (the broker did not take it)"),
        ('"unknown"', "503 overloaded: full (it may or may not have been delivered)"),
        ("null", "503 overloaded: full"),
    ],
)
def test_a_refusal_says_what_became_of_it(outcome: str, sentence: str) -> None:
    body = f'{{"code": "overloaded", "detail": "full", "retriable": true, "outcome": {outcome}}}'.encode()
    error = refusal(_response(503, body, {"Retry-After": "7"}))
    assert str(error) == sentence
    assert error.retriable
    assert error.retry_after == 7


def test_a_refusal_without_a_detail_has_its_title() -> None:
    error = refusal(_response(404, b'{"code": "not_found", "title": "Not found", "retriable": false}'))
    assert str(error) == "404 not_found: Not found"
    assert not error.retriable
    assert error.retry_after is None


@pytest.mark.parametrize(("status", "retriable"), [(502, True), (404, False), (302, False)])
def test_what_a_proxy_says_is_told_by_its_status(status: int, *, retriable: bool) -> None:
    error = refusal(_response(status, b"<html>", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    assert "not an answer of mq-gateway" in str(error)
    assert str(error).startswith(str(status))
    assert error.retriable is retriable
    assert error.retry_after is None


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 3)
    assert read_answer(_response(200, b"abc")) == b"abc"
    with pytest.raises(ClientError, match="too long"):
        read_answer(_response(200, b"abcd"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_anything_but_an_object_is_an_empty_one(body: bytes) -> None:
    assert parse_object(body) == {}


def test_an_unreachable_gateway_is_told_without_a_path() -> None:
    refused = unreachable(_TARGET, httpx.ConnectError("refused"))
    assert str(refused) == ("https://gw.example cannot be reached: refused; is `mq-gateway serve` running there?")
    assert refused.retriable
    assert str(unreachable(_TARGET, httpx.ReadTimeout(""))) == "https://gw.example cannot be reached: ReadTimeout"
