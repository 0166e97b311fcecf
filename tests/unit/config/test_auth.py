"""Settings of who may do what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config.auth import MAX_SECRET, MIN_SECRET, AuthSettings
from app.config.settings import Settings


def test_defaults_to_nobody_known_and_nobody_from_outside() -> None:
    auth = AuthSettings()
    assert (auth.mode, auth.is_open) == (("none",), True)
    assert not auth.allow_anonymous


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("token", ("token",)),
        ("token, certificate", ("token", "certificate")),
        (["token", "certificate"], ("token", "certificate")),
        ("none", ("none",)),
    ],
)
def test_modes(given: object, mode: tuple[str, ...]) -> None:
    auth = AuthSettings.model_validate({"mode": given, "tokens_file": "tokens.json"})
    assert auth.mode == mode
    assert auth.uses_tokens is ("token" in mode)
    assert auth.is_open is (mode == ("none",))


JWT = {"issuer": "https://idp.example", "audience": "mq", "jwks_file": "keys.json"}


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"mode": "password"}, "'none'"),
        ({"mode": []}, "at least 1 item"),
        ({"mode": ["none", "token"], "tokens_file": "t"}, "`none`, or each of token, jwt and certificate once"),
        ({"mode": ["token", "token"], "tokens_file": "t"}, "`none`, or each of token, jwt and certificate once"),
        ({"mode": "token"}, r"needs auth\.tokens_file"),
        ({"mode": "jwt"}, r"needs auth\.jwt"),
        ({"mode": ["token", "jwt"], "tokens_file": "t"}, r"needs auth\.jwt"),
        ({"certificate": {"header": "Authorization"}}, "says something else"),
        ({"certificate": {"verify_header": "Cookie"}}, "says something else"),
        ({"certificate": {"header": "a b"}}, "match pattern"),
        ({"certificate": {"names": {"CN=x": "a::b"}}}, "a principal has no"),
        ({"session_seconds": 0}, "greater than 0"),
    ],
)
def test_what_is_refused(option: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AuthSettings.model_validate(option)


def test_what_is_not_used_may_stand_there() -> None:
    auth = AuthSettings.model_validate({"jwt": JWT, "policy": [], "tokens_file": "tokens.json"})
    assert auth.is_open


def secret(path: Path, data: bytes) -> AuthSettings:
    path.write_bytes(data)
    return AuthSettings(secret_file=path)


def test_a_secret_is_what_the_file_holds_without_the_end_of_its_line(tmp_path: Path) -> None:
    whole = bytes(range(200))
    assert secret(tmp_path / "a", whole).secret == whole
    assert secret(tmp_path / "b", whole + b"\n").secret == whole
    assert secret(tmp_path / "c", whole + b"\r\n").secret == whole
    assert secret(tmp_path / "d", b"x" * MAX_SECRET + b"\r\n").secret == b"x" * MAX_SECRET
    assert AuthSettings().secret is None
    assert "x" * MIN_SECRET not in repr(secret(tmp_path / "e", b"x" * MIN_SECRET))


@pytest.mark.parametrize("size", [0, MIN_SECRET - 1, MAX_SECRET + 1, 10 * MAX_SECRET])
def test_a_secret_is_neither_short_nor_without_end(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValidationError, match="a secret has 16 to 4096 bytes") as raised:
        secret(tmp_path / "secret", b"x" * size)
    assert "xxx" not in str(raised.value)


def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ValidationError, match="secret_file"):
            AuthSettings(secret_file=path)
    with pytest.raises(ValidationError, match="a secret has"):
        AuthSettings(secret_file=Path(os.devnull))


def test_peers_need_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 32)
    with pytest.raises(ValidationError, match=r"server\.peers needs auth\.secret_file"):
        Settings.model_validate({"server": {"peers": ["a"]}})
    settings = Settings.model_validate({"server": {"peers": ["a"]}, "auth": {"secret_file": tmp_path / "secret"}})
    assert settings.auth.secret == b"x" * 32
