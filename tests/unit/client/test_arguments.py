"""What the client commands take on their command line."""

from __future__ import annotations

import io

import pytest
import typer

from app.client import arguments
from app.client.arguments import key_value, parser, read_body, to_headers
from app.domain.uri import MqUri


class _Stdin(io.TextIOWrapper):
    def __init__(self, content: bytes, *, tty: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def test_errors_of_a_parser_are_usage_errors() -> None:
    assert parser(MqUri.parse)("a::queue::b") == MqUri.parse("a::Queues::b")
    with pytest.raises(typer.BadParameter, match="is not an mqURI"):
        parser(MqUri.parse)("a")
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        parser(key_value)("a")


def test_a_header_may_have_an_equals_sign_in_its_value() -> None:
    assert key_value("a=b=c") == ("a", "b=c")
    assert key_value("a=") == ("a", "")
    with pytest.raises(ValueError, match="NAME=VALUE"):
        key_value("=a")


def test_a_header_is_given_once() -> None:
    assert to_headers([("JobID", "1"), ("b", "2")]) == {"JobID": "1", "b": "2"}
    for twice in ([("a", "1"), ("a", "1")], [("a", "1"), ("A", "1")]):
        with pytest.raises(typer.BadParameter, match="twice"):
            to_headers(twice)


def test_the_argument_is_the_body_byte_for_byte() -> None:
    assert read_body("é\udcff") == b"\xc3\xa9\xff"
    assert read_body("") == b""


@pytest.mark.parametrize("argument", ["-", None])
def test_standard_input_is_the_body(monkeypatch: pytest.MonkeyPatch, argument: str | None) -> None:
    monkeypatch.setattr("sys.stdin", _Stdin(b"\x00\xff\n"))
    assert read_body(argument) == b"\x00\xff\n"


def test_nobody_is_left_waiting_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Stdin(b"typed\n", tty=True))
    with pytest.raises(typer.BadParameter, match="BODY is missing"):
        read_body(None)
    assert read_body("-") == b"typed\n"


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "MAX_BODY_BYTES", 3)
    monkeypatch.setattr("sys.stdin", _Stdin(b"abcd"))
    with pytest.raises(typer.BadParameter, match="more than 3 bytes"):
        read_body("-")
