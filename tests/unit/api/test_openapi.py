"""The description of the API against the tables it describes."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

from app.api import batch, batch_message, publish_request, receive_request, settle, several, stream_query
from app.api.openapi import document
from app.api.paths import METHODS, Kind
from app.api.problems import TABLE
from app.domain.errors import Code

PATHS = {
    Kind.SERVICES: "/mq",
    Kind.SERVICE: "/mq/{service}",
    Kind.DESTINATION: "/mq/{service}/{type}/{name}",
    Kind.EVENTS: "/mq/{service}/{type}/{name}/events",
    Kind.JOINT_EVENTS: "/events",
    Kind.RECEIVE: "/mq/{service}/{type}/{name}/receive",
    Kind.ACK: "/mq/{service}/{type}/{name}/ack",
    Kind.NACK: "/mq/{service}/{type}/{name}/nack",
    Kind.RENEW: "/mq/{service}/{type}/{name}/renew",
    Kind.BATCH: "/mq/{service}/{type}/{name}/batch",
    Kind.REQUEST: "/mq/{service}/{type}/{name}/request",
}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document("/gw")


def test_it_is_valid_openapi_31(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1.")
    validate(described)


def test_the_server_is_where_clients_see_it(described: dict[str, Any]) -> None:
    assert described["servers"] == [{"url": "/gw"}]
    assert document("")["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("kind", PATHS, ids=lambda kind: kind.name)
def test_every_method_is_described(described: dict[str, Any], kind: Kind) -> None:
    verbs = {"GET", "POST", "PUT", "DELETE"}
    found = {verb.upper() for verb in described["paths"][PATHS[kind]]} & verbs
    assert found == set(METHODS[kind]) & verbs


def _parameters(described: dict[str, Any], path: str, method: str) -> set[tuple[str, str]]:
    found = described["paths"][path][method]["parameters"]
    return {(one["in"], one["name"]) for one in found if "$ref" not in one}


def test_every_parameter_is_described(described: dict[str, Any]) -> None:
    publish = _parameters(described, PATHS[Kind.DESTINATION], "post")
    labels = {("header", label) for _, label, _ in publish_request.PROPERTIES.values()}
    assert labels | {("query", "confirm"), ("query", "timeout")} <= publish
    request = _parameters(described, PATHS[Kind.REQUEST], "post")
    assert labels - {("header", "Mq-Reply-To")} | {("query", "timeout")} <= request
    # No parameter can have a name that is only begun.
    assert "Mq-Header-<name>" in described["paths"][PATHS[Kind.DESTINATION]]["post"]["description"]
    many = _parameters(described, PATHS[Kind.BATCH], "post")
    assert {("query", name) for name in batch.PARAMETERS} <= many
    element = described["components"]["schemas"]["BatchMessage"]["properties"]
    assert set(element) == {*batch_message.BODIES, *batch_message.MEMBERS, "headers"}
    for kind, names in ((Kind.EVENTS, stream_query.PARAMETERS), (Kind.JOINT_EVENTS, several.PARAMETERS)):
        stream = _parameters(described, PATHS[kind], "get")
        assert {("query", name) for name in names} | {("header", "Last-Event-ID")} == stream


def test_every_parameter_of_taking_is_described(described: dict[str, Any]) -> None:
    receive_ = _parameters(described, PATHS[Kind.RECEIVE], "post") | {("query", "subscription")}
    assert {("query", name) for name in receive_request.PARAMETERS} == receive_
    for kind, what in ((Kind.ACK, settle.Ack), (Kind.NACK, settle.Nack), (Kind.RENEW, settle.Renew)):
        post = described["paths"][PATHS[kind]]["post"]
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert set(described["components"]["schemas"][name]["properties"]) == {"leases", *what.members}


def test_every_code_is_in_the_closed_set(described: dict[str, Any]) -> None:
    assert described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == [code.value for code in Code]


def test_every_status_of_a_problem_is_described(described: dict[str, Any]) -> None:
    statuses = {
        status
        for paths in described["paths"].values()
        for verb in paths.values()
        if isinstance(verb, dict)
        for status in verb.get("responses", {})
    }
    # Without authentication nobody gets 401, and a described method never answers 405.
    assert {str(status) for status, _ in TABLE.values()} - {"401", "405"} <= statuses


def test_the_log_of_examples_is_of_use(described: dict[str, Any]) -> None:
    examples = described["paths"][PATHS[Kind.EVENTS]]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert "retry: " in examples["examples"]["topic"]["value"]
