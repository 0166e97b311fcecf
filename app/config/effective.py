"""The settings as they are in force, as YAML with secrets masked."""

from __future__ import annotations

import re

import yaml

from app.config.settings import Settings

MASK = "**********"
# The options of a foreign connector: nobody here knows which are secret, so their names decide.
_SECRET = re.compile(r"pass|secret|token|credential|key|auth", re.IGNORECASE)
# Some issuers want to be told in a URL who asks for their keys.
_QUERY = re.compile(r"\?.*", re.DOTALL)


def effective_yaml(settings: Settings) -> str:
    """Every option with its value in force; passwords, the query of a URL, and foreign options that look like secrets,
    masked."""
    # pydantic writes a SecretStr as asterisks in this mode.
    values = settings.model_dump(mode="json", by_alias=True)
    for service in values["services"].values():
        service["options"] = _masked(service["options"])
    jwt = values["auth"]["jwt"]
    if jwt is not None and jwt["jwks_url"] is not None:
        jwt["jwks_url"] = _QUERY.sub(f"?{MASK}", jwt["jwks_url"])
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def _masked(value: object) -> object:
    if isinstance(value, dict):
        return {key: MASK if _SECRET.search(key) else _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value
