"""The settings as they are in force, as YAML with secrets masked."""

from __future__ import annotations

import re

import yaml

from app.config.settings import Settings

MASK = "**********"
# The options of a foreign connector: nobody here knows which are secret, so their names decide.
_SECRET = re.compile(r"pass|secret|token|credential|key|auth", re.IGNORECASE)


def effective_yaml(settings: Settings) -> str:
    """Every option with its value in force; passwords, and foreign options that look like secrets,
    masked."""
    # pydantic writes a SecretStr as asterisks in this mode.
    values = settings.model_dump(mode="json", by_alias=True)
    for service in values["services"].values():
        service["options"] = _masked(service["options"])
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def _masked(value: object) -> object:
    if isinstance(value, dict):
        return {key: MASK if _SECRET.search(key) else _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value
