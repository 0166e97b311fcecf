"""Settings of who may do what."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config.auth import AuthSettings


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
        {"secret_file": "secret"},
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
