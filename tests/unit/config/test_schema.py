"""The settings classes looked at from outside."""

from __future__ import annotations

import pytest

from app.config.schema import option_names, section_at, sections_in
from app.config.section import Section
from app.config.settings import QueueSettings, ServiceSettings, Settings, TlsSettings


def test_options_have_the_names_of_a_file() -> None:
    assert "schema" in option_names(QueueSettings)
    assert "json_schema" not in option_names(QueueSettings)


def test_finds_sections_inside_annotations() -> None:
    assert list(sections_in(dict[str, QueueSettings | None])) == [QueueSettings]
    assert list(sections_in(int)) == []


@pytest.mark.parametrize(
    ("keys", "section"),
    [
        ((), Settings),
        (("services", "a"), ServiceSettings),
        (("services", "a", "tls"), TlsSettings),
        (("services", "a", "queues", "tls"), QueueSettings),
        (("services", "a", "port"), None),
        (("services", "a", "port", "deeper"), None),
        (("nothing", "there"), None),
    ],
)
def test_follows_a_path(keys: tuple[str, ...], section: type[Section] | None) -> None:
    assert section_at(Settings, keys) is section
