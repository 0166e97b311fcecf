"""What a caller learns of what others have, and may do by the detour of a header, a key or a name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.auth.token_file import TokenFileError, parse_tokens
from tests.e2e.callers import POLICY, Callers, bearer
from tests.e2e.http_client import Answer, Sse, ask
from tests.e2e.http_gateway import DEMO, Served, serving

JOBS = "/mq/demo/Queues/jobs"
PLAIN = {"Content-Type": "text/plain"}
ARRAY = {"Content-Type": "application/json"}
SERVICES: dict[str, Any] = {
    "demo": DEMO | {"queues": {"jobs": {}, "jobs-secret": {}, "results": {}}},
    "depot": {"mq_type": "Memory", "queues": {"jobs": {}}},
}


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
def alice(callers: Callers) -> dict[str, str]:
    return bearer(callers.add("alice"))


@pytest.fixture
def bob(callers: Callers) -> dict[str, str]:
    """Looks at and publishes to the Queue `jobs`, nothing else."""
    return bearer(callers.add("bob"))


@pytest.fixture
async def served(callers: Callers, alice: dict[str, str], bob: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(SERVICES, auth=callers.auth()) as gateway:
        yield gateway


async def _publish(served: Served, headers: dict[str, str], path: str = JOBS, body: bytes = b"x") -> Answer:
    return await ask(served.port, "POST", path, body, PLAIN | headers)


# Replies.


@pytest.mark.parametrize(
    "reply_to", ["demo::Queues::results", "demo::Queues::nowhere", "depot::Queues::jobs", "else::Queues::x", "x", ""]
)
async def test_no_reply_is_asked_for_where_one_may_not_publish(
    served: Served, bob: dict[str, str], reply_to: str
) -> None:
    header = {"Mq-Reply-To": reply_to}
    one = await _publish(served, bob | header)
    several = await ask(served.port, "POST", f"{JOBS}/batch", b'[{"body":1}]', ARRAY | bob | header)
    together = await ask(served.port, "POST", f"{JOBS}/batch?atomic=true", b'[{"body":1}]', ARRAY | bob | header)
    for answer in (one, several, together):
        assert (answer.status, answer.code) == (400, "invalid_header")
    assert await _taken(served) == 0


async def test_whether_the_forbidden_exists_is_not_told_by_a_reply_to(served: Served, bob: dict[str, str]) -> None:
    details = {
        (await _publish(served, bob | {"Mq-Reply-To": uri})).json["detail"]
        for uri in ("demo::Queues::results", "demo::Queues::nowhere", "demo::Queues::jobs-secret")
    }
    assert len(details) == 1


async def test_a_reply_to_where_one_may_publish_is_taken(served: Served, alice: dict[str, str]) -> None:
    assert (await _publish(served, alice | {"Mq-Reply-To": "demo::Queues::results"})).status == 200


@pytest.mark.parametrize(
    "element",
    [
        {"body": 1, "reply_to": "demo::Queues::results"},
        {"body": 1, "headers": {"reply-to": "/queue/results"}},
        {"body": 1, "headers": {"Reply-To": "/queue/results"}},
        {"body": 1, "headers": {"destination": "/queue/results"}},
    ],
)
async def test_no_element_of_a_batch_names_a_reply_to(
    served: Served, bob: dict[str, str], element: dict[str, Any]
) -> None:
    answer = await ask(served.port, "POST", f"{JOBS}/batch", json.dumps([element]).encode(), ARRAY | bob)
    assert answer.status == 400
    assert answer.json["confirmed"] == 0
    header = await _publish(served, bob | {"Mq-Header-Reply-To": "/queue/results"})
    assert (header.status, header.code) == (400, "invalid_header")


async def _taken(served: Served) -> float:
    return served.metric("mq_gateway_publishes_total", service="demo", type="Queues", outcome="confirmed")


# Looking.


async def test_everybody_sees_what_he_may_look_at(served: Served, alice: dict[str, str], bob: dict[str, str]) -> None:
    everything = await ask(served.port, "GET", "/mq", headers=bob)
    assert [service["service"] for service in everything.json["services"]] == ["demo"]
    for view in (everything.json["services"][0], (await ask(served.port, "GET", "/mq/demo", headers=bob)).json):
        assert [each["mq_uri"] for each in view["destinations"]] == ["demo::Queues::jobs"]
    for path in ("/mq/depot", "/mq/nowhere", "/mq/demo/Queues/results", "/mq/demo/Queues/nowhere", "/metrics"):
        answer = await ask(served.port, "GET", path, headers=bob)
        assert (answer.status, answer.code) == (403, "forbidden"), path
    assert b"depot" not in everything.body
    assert b"secret" not in everything.body


async def test_a_near_miss_is_told_only_of_what_one_may_look_at(callers: Callers, bob: dict[str, str]) -> None:
    rules = [*POLICY, {"principals": ["bob"], "allow": ["publish"], "uris": ["*"]}]
    async with serving(SERVICES, auth=callers.auth(policy=rules)) as served:
        near = await _publish(served, bob, "/mq/demo/Queues/job")
        assert (near.status, "jobs'" in near.json["detail"]) == (404, True)
        for path in ("/mq/demo/Queues/jobs-secre", "/mq/demo/Queues/result", "/mq/demo/Topics/event"):
            answer = await _publish(served, bob, path)
            assert answer.status == 404
            for name in ("jobs-secret'", "results'", "events'"):
                assert name not in answer.json["detail"], path
        services = await _publish(served, bob, "/mq/depo/Queues/jobs")
        assert (services.status, "depot" in services.json["detail"]) == (404, False)


async def test_what_is_hidden_is_as_if_it_were_not_there(callers: Callers, bob: dict[str, str]) -> None:
    async with serving(SERVICES, auth=callers.auth(hide_forbidden=True)) as served:
        for method, there, nowhere in (
            ("GET", "/mq/demo/Queues/results", "/mq/demo/Queues/nothing"),
            ("GET", "/mq/depot", "/mq/nevot"),
            ("POST", "/mq/depot/Queues/jobs", "/mq/nevot/Queues/jobs"),
            ("GET", "/mq/demo/Topics/events/events", "/mq/demo/Topics/eventx/events"),
            ("POST", "/mq/demo/Queues/results/receive", "/mq/demo/Queues/nothing/receive"),
            ("GET", "/events?uri=demo::Topics::events", "/events?uri=demo::Topics::eventx"),
        ):
            body = b"" if method == "POST" else None
            one = await ask(served.port, method, there, body, bob)
            other = await ask(served.port, method, nowhere, body, bob)
            assert (one.status, one.code) == (other.status, other.code), there
            assert one.status == 404, there
            details = [_nameless(answer.json["detail"]) for answer in (one, other)]
            assert details[0] == details[1], there


def _nameless(detail: str) -> str:
    for name in ("results", "nothing", "depot", "nevot", "events", "eventx"):
        detail = detail.replace(name, "NAME")
    return detail


async def test_whoever_is_unknown_learns_of_nothing(served: Served) -> None:
    paths = [
        "/mq",
        "/mq/demo",
        "/mq/nowhere",
        JOBS,
        "/mq/demo/Queues/*",
        "/mq/demo/x/y",
        "/mq/",
        "/metrics",
        "/nowhere",
    ]
    for path in (*paths, "/asyncapi.json", "/events?uri=demo::Topics::events", "/session"):
        answer = await ask(served.port, "GET", path)
        assert (answer.status, answer.code) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
        assert (await ask(served.port, "GET", path)).status == 200, path


# Keys.


async def test_the_same_key_of_two_callers_is_two_keys(
    served: Served, alice: dict[str, str], bob: dict[str, str]
) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await _publish(served, alice | key, body=b"of alice")
    second = await _publish(served, bob | key, body=b"of bob")
    again = await _publish(served, alice | key, body=b"of alice")
    assert [first.status, second.status, again.status] == [200, 200, 200]
    received = await ask(served.port, "POST", f"{JOBS}/receive?max=5&wait=1&ack=auto", b"", alice)
    assert sorted(message["body"] for message in received.json["messages"]) == ["of alice", "of bob"]


# Names.


@pytest.mark.parametrize(
    "name",
    ["anonymous", "*", "a*", "group:x", "claim:vo=x", "token:x", "jwt:x", "certificate:x", "a::b", "::", "a/b", "/",
     "", " a", "a\n", "a\x00", "a\u2028b", "\u202eecila", "a" * 256],
)  # fmt: skip
@pytest.mark.parametrize("member", ["name", "principal"])
def test_a_name_that_could_be_taken_for_something_else_is_none(name: str, member: str) -> None:
    entry = {"name": "ok", "hash": "sha256:" + "0" * 64} | {member: name}
    with pytest.raises(TokenFileError, match="token 1"):
        parse_tokens("tokens.json", json.dumps({"tokens": [entry]}).encode())


async def test_a_lease_is_no_key_to_another_queue(served: Served, alice: dict[str, str], bob: dict[str, str]) -> None:
    await _publish(served, alice)
    received = await ask(served.port, "POST", f"{JOBS}/receive?wait=1", b"", alice)
    lease = received.json["messages"][0]["lease"]
    elsewhere = await ask(served.port, "POST", f"/mq/demo/Queues/results/ack?lease={lease}", b"", alice)
    assert elsewhere.json["results"][0]["result"] == "unknown"
    assert (await ask(served.port, "POST", f"{JOBS}/ack?lease={lease}", b"", bob)).status == 403
    assert (await ask(served.port, "POST", f"{JOBS}/ack?lease={lease}", b"", alice)).status == 200


async def test_one_of_several_that_is_forbidden_forbids_all(
    callers: Callers, alice: dict[str, str], bob: dict[str, str]
) -> None:
    rules = [*POLICY, {"principals": ["bob"], "allow": ["subscribe"], "uris": ["demo::Topics::events"]}]
    async with serving(SERVICES, auth=callers.auth(policy=rules)) as served:
        target = "/events?uri=demo::Topics::events"
        stream = await Sse.open(served.port, target, bob)
        assert stream.status == 200
        for more in ("demo::Topics::small", "demo::Queues::jobs", "depot::Queues::jobs", "demo::Topics::nowhere"):
            answer = await ask(served.port, "GET", f"{target}&uri={more}", headers=bob)
            assert answer.status == 403, (more, answer)
