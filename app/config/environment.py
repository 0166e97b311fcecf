"""`MQ_GATEWAY_…` variables to a document.

`MQ_GATEWAY_SERVER__PORT=9000` sets server.port, likewise AUTH and LIMITS; `MQ_GATEWAY_SERVICES` is JSON in
the form of the section `services`. A variable without `__` that is none of these is not ours: Kubernetes
makes `MQ_GATEWAY_PORT` and others for a service called mq-gateway, and the client commands have
MQ_GATEWAY_URL and MQ_GATEWAY_TOKEN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from app.config.document import Document, Keys, Value, text
from app.config.errors import ConfigError, Place, Problem

PREFIX = "MQ_GATEWAY_"
SERVICES = f"{PREFIX}SERVICES"
_SECTIONS = ("server", "auth", "limits")


class _Variables(BaseSettings):
    """The shape pydantic-settings reads the variables in; what may stand inside is up to the settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, env_parse_none_str="null"
    )
    server: dict[str, Any] = Field(default_factory=dict)
    auth: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)


class _Source(EnvSettingsSource):
    """The same source over a mapping that is handed in instead of the process's own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._given = environ
        super().__init__(_Variables)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._given.items() if value}


def read_environment(environ: Mapping[str, str]) -> Document:
    """What the variables set; raises ConfigError that names the variable."""
    ours = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX) and value}
    document = Document()
    _check_names(ours, document)
    try:
        parsed = _Source({name: value for name, value in ours.items() if name.upper() != SERVICES})()
    except SettingsError:
        place = Place("environment")
        raise ConfigError([Problem("MQ_GATEWAY_SERVER, _AUTH and _LIMITS take a JSON object", place=place)]) from None
    values = text({name: _decoded(value) for name, value in parsed.items()})
    document.values = values if isinstance(values, dict) else {}
    for name in ours:
        document.places[_keys(name)] = Place(f"environment variable {name}")
    if environ.get(SERVICES):
        document.values["services"] = _services(environ[SERVICES])
    return document


def _keys(name: str) -> Keys:
    return tuple(name[len(PREFIX) :].lower().split("__"))


def _check_names(ours: Mapping[str, str], document: Document) -> None:
    for name in ours:
        section, *inner = _keys(name)
        near = get_close_matches(section, (*_SECTIONS, "services"), 1, 0.85)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        if inner and section == "services":
            raise ConfigError([Problem(f"services are given as JSON in {SERVICES}", place=Place(name))])
        if inner and section not in _SECTIONS:
            raise ConfigError([Problem(f"there is no section {section}{hint}", place=Place(name))])
        if not inner and near and section not in (*_SECTIONS, "services"):
            document.warnings.append(f"environment variable {name} is ignored{hint}")


def _decoded(value: object) -> object:
    """Lists and objects in JSON within a variable; anything else stays text."""
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _services(content: str) -> Value:
    place = Place(f"environment variable {SERVICES}")
    try:
        # Numbers keep their digits: they may turn out to be text.
        parsed = json.loads(content, parse_int=str, parse_float=str, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise ConfigError([Problem("not valid JSON", "services", Place(place.source, line))]) from None
    if not isinstance(parsed, dict):
        raise ConfigError([Problem("must be a JSON object: service name to settings", "services", place)])
    return text(parsed)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ConfigError([Problem("an object has a key twice", "services", Place(f"environment variable {SERVICES}"))])
    return dict(pairs)
