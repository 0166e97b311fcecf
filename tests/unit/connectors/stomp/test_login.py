"""What a broker says when it does not want us."""

from __future__ import annotations

import pytest
from stomp.utils import Frame

from app.config.service import ServiceSettings
from app.connectors.stomp.login import error_text


def _text(body: bytes, **login: str) -> str:
    frame = Frame("ERROR", {"message": "Bad CONNECT"}, body)
    return error_text(frame, ServiceSettings.model_validate({"host": "h", **login}))


@pytest.mark.parametrize(
    ("password", "said"),
    [
        pytest.param("hunter2!", b"passcode hunter2! is wrong", id="as it is"),
        pytest.param("hun  ter2!", b"passcode hun  ter2! is wrong", id="with spaces that would be one"),
        pytest.param("hun\\ter2!", b"passcode hun\\\\ter2! is wrong", id="with its backslash doubled"),
    ],
)
def test_our_password_is_not_repeated(password: str, said: bytes) -> None:
    assert _text(said, user="guest", password=password) == "Bad CONNECT: passcode *** is wrong"


@pytest.mark.parametrize(("user", "password"), [("guest", "guest"), ("mq", "deny"), ("mq", "")])
def test_what_is_no_secret_may_be_read(user: str, password: str) -> None:
    assert _text(b"guest was denied", user=user, password=password) == "Bad CONNECT: guest was denied"


def test_it_is_one_line_and_not_long() -> None:
    text = _text(b"a\r\nb" * 1000)
    assert text.startswith("Bad CONNECT: a ba b")
    assert len(text) == 500
