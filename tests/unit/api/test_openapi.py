"""The description of the API against the tables it describes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from app.api import batch, batch_message, publish_request, receive_request, settle, several, stream_query
from app.api.openapi import document
from app.api.paths import METHODS, Kind
from app.api.problems import MEDIA_TYPE, TABLE
from app.auth.sessions import COOKIE
from app.domain.errors import Code
from tests.routes import PATHS

VERBS = {"get", "post", "put", "patch", "delete"}
#: The only operations for which nobody is asked who they are.
OPEN = {"live", "ready", "openapi", "docs", "index"}
PUBLISHES = {"publish", "publish_batch", "request"}
STREAMS = {"subscribe", "subscribe_to_several"}
BEARER, SESSION, TICKET = {"bearer": list[str]()}, {"session": list[str]()}, {"ticket": list[str]()}


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
    found = described["paths"][PATHS[kind]].keys() & VERBS
    assert found == {method.lower() for method in METHODS[kind]} & VERBS


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
    assert {str(status) for status, _ in TABLE.values()} <= statuses


def _operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All of them, by their id."""
    found = [operation for path in described["paths"].values() for verb, operation in path.items() if verb in VERBS]
    return {operation["operationId"]: operation for operation in found}


def _answers(described: dict[str, Any], operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By status; what a reference stands for is there itself."""
    shared = described["components"]["responses"]
    found = operation["responses"].items()
    return {status: shared[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for status, one in found}


def _asked(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in _operations(described).items() if name not in OPEN}


def test_every_kind_of_resource_has_its_path() -> None:
    assert PATHS.keys() == METHODS.keys() == set(Kind) - {Kind.PAGE}


def test_where_nobody_is_asked_the_document_says_so(described: dict[str, Any]) -> None:
    operations = _operations(described)
    assert {name for name, one in operations.items() if one.get("security") == []} == OPEN
    assert not any(operations[name]["responses"].keys() & {"401", "403"} for name in OPEN)


def test_how_callers_are_recognised(described: dict[str, Any]) -> None:
    schemes = described["components"]["securitySchemes"]
    assert {
        name: (one["type"], one.get("scheme"), one.get("in"), one.get("name")) for name, one in schemes.items()
    } == {
        "bearer": ("http", "bearer", None, None),
        "session": ("apiKey", None, "cookie", COOKIE),
        "ticket": ("apiKey", None, "query", "ticket"),
    }
    assert described["security"] == [BEARER, SESSION]
    special = {name: [BEARER, SESSION, TICKET] for name in STREAMS} | {"sign_in": [BEARER], "sign_out": [SESSION, {}]}
    told = {name: one["security"] for name, one in _asked(described).items() if "security" in one}
    assert told == special


def test_whoever_is_asked_may_be_refused(described: dict[str, Any]) -> None:
    for name, one in _asked(described).items():
        answers = _answers(described, one)
        # Whoever signs out is nobody afterwards, and may be before.
        assert ({"401", "403", "503"} - ({"401"} if name == "sign_out" else set())) <= answers.keys(), name
        if name != "sign_out":
            assert answers["401"]["headers"]["WWW-Authenticate"]
    # Where a Topic is hidden there is nothing to be found.
    assert all(
        "404" in one["responses"] for name, one in _asked(described).items() if name not in ("who_am_i", "sign_out")
    )


def test_what_is_too_much_is_told_with_the_time_to_wait(described: dict[str, Any]) -> None:
    operations = _operations(described)
    assert {name for name, one in operations.items() if "429" in one["responses"]} == PUBLISHES | STREAMS
    for name, one in _asked(described).items():
        for status in {"409", "429", "503"} & one["responses"].keys():
            assert "Retry-After" in _answers(described, one)[status]["headers"], (name, status)
    assert all("rate_limited" in _answers(described, operations[name])["429"]["description"] for name in PUBLISHES)
    assert all("too_many_streams" in _answers(described, operations[name])["429"]["description"] for name in STREAMS)


def test_every_refusal_is_a_problem(described: dict[str, Any]) -> None:
    for name, one in _asked(described).items():
        for status, answer in _answers(described, one).items():
            if status >= "400":
                assert list(answer["content"]) == [MEDIA_TYPE.decode()], (name, status)


def test_every_code_stands_where_its_status_is_described(described: dict[str, Any]) -> None:
    told = {code: set[str]() for code in TABLE}
    for one in _operations(described).values():
        for status, answer in _answers(described, one).items():
            for code in TABLE:
                if re.search(rf"\b{code.value}\b", answer["description"]):
                    told[code].add(status)
    assert {code: {str(status)} for code, (status, _) in TABLE.items()} == told


def test_every_example_is_as_its_schema_says(described: dict[str, Any]) -> None:
    problem = described["components"]["schemas"]["Problem"]
    for answer in described["components"]["responses"].values():
        for example in answer["content"]["application/problem+json"].get("examples", {}).values():
            value = example["value"]
            assert value.keys() >= set(problem["required"])
            assert TABLE[Code(value["code"])] == (value["status"], value["title"])


def test_the_log_of_examples_is_of_use(described: dict[str, Any]) -> None:
    examples = described["paths"][PATHS[Kind.EVENTS]]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert "retry: " in examples["examples"]["topic"]["value"]
