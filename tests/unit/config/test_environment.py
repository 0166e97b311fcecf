"""MQ_GATEWAY_ variables to a document."""

from __future__ import annotations

import pytest

from app.config.environment import read_environment
from app.config.errors import ConfigError


def test_reads_nested_options_as_text() -> None:
    document = read_environment(
        {
            "MQ_GATEWAY_SERVER__PORT": "09000",
            "MQ_GATEWAY_SERVER__TLS__CERT_FILE": "a",
            "MQ_GATEWAY_SERVER__ALLOWED_HOSTS": "a,b",
            "MQ_GATEWAY_SERVER__TRUSTED_PROXIES": '["::1"]',
            "MQ_GATEWAY_SERVER__ROOT_PATH": "{not json",
            "mq_gateway_auth__allow_anonymous": "true",
            "MQ_GATEWAY_LIMITS": '{"streams": 5}',
            "MQ_GATEWAY_LIMITS__IN_FLIGHT": "7",
        }
    )
    assert document.values == {
        "server": {
            "port": "09000",
            "tls": {"cert_file": "a"},
            "allowed_hosts": "a,b",
            "trusted_proxies": ["::1"],
            "root_path": "{not json",
        },
        "auth": {"allow_anonymous": "true"},
        "limits": {"streams": "5", "in_flight": "7"},
    }
    assert str(document.place(("server", "port"))) == "environment variable MQ_GATEWAY_SERVER__PORT"


def test_services_are_json_and_keep_case_and_digits() -> None:
    document = read_environment(
        {"MQ_GATEWAY_SERVICES": '{"A.b": {"host": "h", "port": 1, "password": 1e3, "tls": true}}'}
    )
    assert document.values == {"services": {"A.b": {"host": "h", "port": "1", "password": "1e3", "tls": "true"}}}
    assert str(document.place(("services", "A.b", "port"))) == "environment variable MQ_GATEWAY_SERVICES"


def test_empty_and_foreign_variables_are_nothing() -> None:
    foreign = {
        "MQ_GATEWAY_SERVICES": "",
        "MQ_GATEWAY_SERVER__PORT": "",
        "MQ_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "MQ_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "MQ_GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        "MQ_GATEWAY_URL": "http://x",
        "MQ_GATEWAY_TOKEN": "hunter2",
        "PATH": "/bin",
    }
    document = read_environment(foreign)
    assert document.values == {}
    assert document.warnings == []


def test_null_is_unset() -> None:
    assert read_environment({"MQ_GATEWAY_LIMITS": '{"memory_bytes": null}'}).values == {
        "limits": {"memory_bytes": None}
    }


def test_a_near_miss_is_warned_about() -> None:
    assert read_environment({"MQ_GATEWAY_SERVICE": "{}"}).warnings == [
        "environment variable MQ_GATEWAY_SERVICE is ignored; did you mean MQ_GATEWAY_SERVICES?"
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MQ_GATEWAY_SERVR__PORT", "1", "there is no section servr; did you mean MQ_GATEWAY_SERVER?"),
        ("MQ_GATEWAY_COLOUR__X", "1", "there is no section colour"),
        ("MQ_GATEWAY_SERVICES__A__PASSWORD", "hunter2", "services are given as JSON in MQ_GATEWAY_SERVICES"),
        ("MQ_GATEWAY_SERVER", "{hunter2", "take a JSON object"),
        ("MQ_GATEWAY_SERVICES", '{"a":\n hunter2}', "MQ_GATEWAY_SERVICES:2: services: not valid JSON"),
        ("MQ_GATEWAY_SERVICES", '["hunter2"]', "must be a JSON object"),
        ("MQ_GATEWAY_SERVICES", '{"a": {"password": "hunter2", "password": ""}}', "an object has a key twice"),
        ("MQ_GATEWAY_SERVICES", '{"a":' + "[" * 200_000, "not valid JSON"),
    ],
)
def test_what_is_wrong_names_the_variable_and_not_the_value(name: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_environment({name: value})
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)
