"""The settings in force, secrets masked."""

from __future__ import annotations

from typing import Any

import yaml

from app.config.effective import MASK, effective_yaml
from app.config.settings import Settings


def _dump(service: dict[str, Any]) -> tuple[str, Any]:
    text = effective_yaml(Settings.model_validate({"services": {"a": service}}))
    return text, yaml.safe_load(text)


def test_shows_defaults_and_file_names_of_options() -> None:
    _, values = _dump({"host": "h", "queues": {"q": {}}})
    assert values["server"]["port"] == 8080
    assert values["services"]["a"]["queues"]["q"]["schema"] is None


def test_no_secret_is_shown() -> None:
    options = {"api_key": "hunter2", "deep": {"Password": "hunter2", "list": [{"token": "hunter2"}, "shown"]}, "n": "1"}
    text, values = _dump({"mq_type": "Mine", "password": "hunter2", "options": options})
    assert "hunter2" not in text
    assert values["services"]["a"]["password"] == MASK
    assert values["services"]["a"]["options"] == {
        "api_key": MASK,
        "deep": {"Password": MASK, "list": [{"token": MASK}, "shown"]},
        "n": "1",
    }


def test_the_query_of_a_url_is_not_shown() -> None:
    jwt = {"issuer": "i", "audience": ["a"], "jwks_url": "https://idp.example/keys?key=hunter2#hunter2"}
    auth = {"mode": "jwt", "jwt": jwt}
    text = effective_yaml(Settings.model_validate({"services": {"a": {"host": "h"}}, "auth": auth}))
    assert "hunter2" not in text
    assert yaml.safe_load(text)["auth"]["jwt"]["jwks_url"] == f"https://idp.example/keys?{MASK}"


def test_the_dump_is_a_configuration_again() -> None:
    text, values = _dump({"host": "h", "queues": {"q": {}}, "topics": {"t": {"slow": "latest"}}})
    assert effective_yaml(Settings.model_validate(values)) == text
