"""The whole configuration as one value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from app.config.schema import option_names, sections_in
from app.config.section import Section
from app.config.settings import ServiceSettings, Settings


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from _sections(inner)


def test_everything_has_a_default_but_the_services() -> None:
    settings = Settings()
    assert settings.services == {}
    assert settings == Settings.model_validate({"server": None, "services": None, "auth": None, "limits": None})


@pytest.mark.parametrize("name", ["", "a::b", "a/b", "a b", "a\n", "a%2F", "é" * 128, "*"])
def test_a_service_name_fits_a_path_and_an_mq_uri(name: str) -> None:
    with pytest.raises(ValidationError, match="a service name has"):
        Settings(services={name: ServiceSettings(host="h")})


def test_service_names_may_have_dots() -> None:
    assert list(Settings(services={"mardirac3.in2p3.fr": ServiceSettings(host="h")}).services) == ["mardirac3.in2p3.fr"]


def test_a_service_without_anything_lacks_a_host() -> None:
    with pytest.raises(ValidationError, match="host"):
        Settings.model_validate({"services": {"a": None}})


def test_every_setting_is_documented() -> None:
    undocumented = [
        f"{section.__name__}.{name}"
        for section in _sections(Settings)
        for name, field in option_names(section).items()
        if not field.description
    ]
    assert undocumented == []
