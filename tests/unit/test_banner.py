"""What a started gateway tells the person who started it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from app.banner import banner, example_destination
from app.config.settings import Settings

_URL = "http://127.0.0.1:8080"


def _settings(**services: dict[str, Any]) -> Settings:
    return Settings.model_validate({"services": services})


@pytest.mark.parametrize(
    ("services", "example"),
    [
        ({"a": {"queues": {"q": {}}}, "b": {"queues": {"r": {}}, "topics": {"t": {}, "u": {}}}}, "b::Topics::t"),
        ({"a": {}, "b": {"queues": {"q": {}}}}, "b::Queues::q"),
        ({"a": {}}, "None"),
    ],
)
def test_the_example_is_the_first_topic_else_the_first_queue(services: dict[str, Any], example: str) -> None:
    complete = {name: {"mq_type": "Memory", **service} for name, service in services.items()}
    assert str(example_destination(_settings(**complete))) == example


def test_says_where_it_is_and_what_to_paste() -> None:
    memory = {"mq_type": "Memory", "topics": {"it's /é": {}}}
    text = banner(_settings(demo=memory, rabbit={"hosts": ["a", "b:5"]}, own={"mq_type": "Mine"}), _URL, "1.2.3")
    lines = text.splitlines()
    assert lines[0] == f"mq-gateway 1.2.3 listens on {_URL}"
    assert lines[1].startswith("  demo: Memory, in the memory of this process")
    assert lines[2:4] == ["  rabbit: Stomp, a:61613, b:5", "  own: Mine"]
    listen, publish = (shlex.split(line) for line in lines if line.startswith("  curl "))
    resource = f"{_URL}/mq/demo/Topics/it%27s%20%2F%C3%A9"
    assert listen == ["curl", "-N", f"{resource}/events"]
    assert publish == ["curl", resource, "-H", "Content-Type: application/json", "-d", '{"hello": "world"}']


def test_without_a_destination_there_is_nothing_to_paste() -> None:
    assert "curl" not in banner(_settings(own={"mq_type": "Mine"}), _URL, "1")
