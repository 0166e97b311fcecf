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
    assert auth.mode == "none"
    assert not auth.allow_anonymous


@pytest.mark.parametrize(
    "option",
    [
        {"mode": "token"},
        {"mode": "jwt"},
        {"mode": ["token", "jwt"]},
        {"tokens_file": "tokens.json"},
        {"jwt": {"issuer": "https://idp.example"}},
        {"policy": [{"allow": ["look"]}]},
    ],
)
def test_later_options_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="not supported in this version"):
        AuthSettings.model_validate(option)


def test_an_unknown_mode_is_simply_wrong() -> None:
    with pytest.raises(ValidationError, match="'none'"):
        AuthSettings.model_validate({"mode": "password"})


def test_later_options_may_be_spelled_out_as_unset() -> None:
    assert AuthSettings.model_validate({"jwt": None, "policy": [], "tokens_file": None}) == AuthSettings()


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
