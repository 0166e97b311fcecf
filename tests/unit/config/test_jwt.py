"""Settings of how JWTs are verified."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config.jwt import JwtSettings

GOOD = {"issuer": "https://idp.example", "audience": "mq", "jwks_file": "keys.json"}
BY_URL = {"issuer": "https://idp.example", "audience": "mq", "jwks_url": "https://idp.example/keys"}


def test_defaults() -> None:
    jwt = JwtSettings.model_validate(GOOD)
    assert (jwt.algorithms, jwt.audience, jwt.leeway) == (["RS256"], ["mq"], 0)
    assert (jwt.principal_claim, jwt.groups_claim) == ("sub", "groups")


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example/realms/x/certs?a=b",
        "http://127.0.0.1:8000/keys",
        "http://localhost/keys",
        "http://[::1]:1/keys",
    ],
)
def test_where_keys_may_be(url: str) -> None:
    assert JwtSettings.model_validate({**BY_URL, "jwks_url": url}).jwks_url == url


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"issuer": ""}, "at least 1 character"),
        ({"audience": []}, "at least 1 item"),
        ({"algorithms": []}, "at least 1 item"),
        ({"algorithms": ["none"]}, "'none' is not an algorithm"),
        ({"algorithms": "RS256, None"}, "'None' is not an algorithm"),
        ({"algorithms": ["rs256"]}, "'rs256' is not an algorithm"),
        ({"algorithms": ["HS256", "RS256"]}, "do not go together"),
        ({"jwks_url": "https://idp.example/keys"}, "either jwks_url or jwks_file"),
        ({"jwks_file": None}, "either jwks_url or jwks_file"),
        ({"jwks_file": None, "jwks_url": "http://idp.example/keys"}, "must begin with https://"),
        ({"jwks_file": None, "jwks_url": "https://user:hunter2@idp.example/keys"}, "without user information"),
        ({"jwks_file": None, "jwks_url": "file:///etc/passwd"}, "must be an https URL"),
        ({"jwks_file": None, "jwks_url": "https:///keys"}, "must be an https URL"),
        ({"jwks_file": None, "jwks_url": "https://idp.example/k", "algorithms": "HS256"}, "from jwks_file only"),
        ({"leeway": 301}, "less than or equal to 300"),
        ({"jwks_refresh": 0.5}, "greater than or equal to 1"),
        ({"jwks_max_age": 0}, "greater than or equal to 1"),
        ({"principal_claim": ""}, "at least 1 character"),
    ],
)
def test_what_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        JwtSettings.model_validate({**GOOD, **change})
    assert "hunter2" not in str(refused.value)
