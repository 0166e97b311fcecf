"""Validation errors in the operator's words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.config.document import Document
from app.config.errors import Place
from app.config.explain import explain
from app.config.settings import Settings


def _explained(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    return [str(problem) for problem in explain(caught.value, Document(places={("services", "a"): Place("x", 3)}))]


def _service(**options: Any) -> dict[str, Any]:
    return {"services": {"a": {"host": "h", **options}}}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prot": "1"}, "prot: unknown option; did you mean port?"),
        ({"port": "abc"}, "port: must be a whole number, not 'abc'"),
        ({"port": "10s"}, "port: must be a whole number, not '10s'"),
        ({"port": "hunter2!"}, "port: must be a whole number"),
        ({"connections": "correct horse"}, "connections: must be 'single' or 'split'"),
        ({"port": {}}, "port: must be a whole number"),
        ({"port": "0"}, "port: must be greater than or equal to 1"),
        ({"connect_timeout": "soon"}, "connect_timeout: must be a number, not 'soon'"),
        ({"connect_timeout": "nan"}, "connect_timeout: must be a finite number"),
        ({"required": "perhaps"}, "required: must be true or false, not 'perhaps'"),
        ({"connections": "double"}, "connections: must be 'single' or 'split', not 'double'"),
        ({"consume_from": "some"}, "consume_from: must be 'one' or 'all', not 'some'"),
        ({"queues": {"a*": None}}, "queues.a*: the name contains '*', which a broker may take for more than a name"),
        ({"queues": "jobs"}, "queues: must be a section, not a single value"),
        ({"reconnect": "fast"}, "reconnect: must be a section, not a single value"),
        ({"user": ["hunter2"]}, "user: must be text"),
        ({"password": ["hunter2"]}, "password: must be text"),
        ({"heartbeat_ms": "hunter2"}, "heartbeat_ms: must be a list"),
        ({"heartbeat_ms": ["1"]}, "heartbeat_ms.1: is missing"),
        ({"hosts": ["b"]}, "only one of host, hosts"),
    ],
)
def test_one_sentence_an_error(options: dict[str, Any], sentence: str) -> None:
    separator = "." if ": " in sentence else ": "
    assert _explained(_service(**options)) == [f"x:3: services.a{separator}{sentence}"]


def test_without_a_near_name_the_known_ones_are_listed() -> None:
    assert _explained({"zzzz": "1"}) == ["zzzz: unknown option; known are server, services, auth, limits"]


def test_every_error_is_told() -> None:
    assert len(_explained(_service(port="a", prot="b", user=[]))) == 3
