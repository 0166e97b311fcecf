"""GET /events over real sockets: several destinations, one stream, one id."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.domain.link import LinkState
from app.domain.uri import MqUri
from tests.e2e.http_client import Sse
from tests.e2e.http_gateway import DEMO, Event, Events, Served, serving, until

A, B, SMALL, JOBS = "demo::Topics::events", "other::Topics::alerts", "demo::Topics::small", "demo::Queues::jobs"
SERVICES: dict[str, Any] = {
    "demo": DEMO,
    "other": {
        "mq_type": "Memory",
        "queues": {"work": {}},
        "topics": {"alerts": {}, "logged": {"replay": "stream", "ring_messages": 4}},
    },
}
LOGGED, WORK = "other::Topics::logged", "other::Queues::work"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(SERVICES, heartbeat=0.2, write_timeout=1) as running:
        yield running


def path(*uris: str, **more: str) -> str:
    return "/events?" + urlencode([*(("uri", uri) for uri in uris), *more.items()])


async def opened(events: Events, *, blocks: int = 3) -> str:
    """Read the first bytes; the position."""
    seen = [await events.next() for _ in range(blocks)]
    return seen[-1].id or ""


async def put(served: Served, uri: str, body: str) -> None:
    parsed = MqUri.parse(uri)
    target = f"/mq/{parsed.service}/{parsed.type}/{quote(parsed.name, safe='')}"
    answer = await served.client.post(target, content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 200, answer.text


async def messages(events: Events, number: int) -> list[tuple[str, str]]:
    """Where each came from, and its body; a gap with its reason."""
    return [told(await events.message()) for _ in range(number)]


def told(event: Event) -> tuple[str, str]:
    value = event.json
    return value["mq_uri"], f"gap {value['reason']}" if event.event == "gap" else value["body"]


async def test_sse_case_65_several_services_come_on_one_stream_as_envelopes(served: Served) -> None:
    async with served.stream(path(A, B, JOBS)) as events:
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        position = await opened(events)
        for uri in (A, B, JOBS):
            await put(served, uri, uri)
        seen = [await events.message() for _ in range(3)]
        assert {told(event) for event in seen} == {(A, A), (B, B), (JOBS, JOBS)}
        for event in seen:
            # A message of a Queue has no id, and leaves the client's as it is.
            assert event.json["id"] == event.id
            assert (event.id is None) is (event.json["mq_uri"] == JOBS)
            assert event.id is None or 0 < len(event.id) <= 1024
    async with served.stream(path(A, B), headers={"last-event-id": position}) as events:
        assert sorted(await messages(events, 2)) == [(A, A), (B, B)]


async def test_it_goes_on_in_each_behind_what_was_seen(served: Served) -> None:
    async with served.stream(path(A, LOGGED)) as events:
        await opened(events)
        for number in range(3):
            await put(served, A, f"a{number}")
            await put(served, LOGGED, f"l{number}")
        seen = [await events.message() for _ in range(6)]
    for number in range(3, 6):
        await put(served, A, f"a{number}")
        await put(served, LOGGED, f"l{number}")
    every = {A: [f"a{number}" for number in range(6)], LOGGED: [f"l{number}" for number in range(6)]}
    for cut in range(6):
        before: dict[str, int] = defaultdict(int)
        for event in seen[: cut + 1]:
            before[event.json["mq_uri"]] += 1
        # Whatever their order now.
        headers = {"last-event-id": seen[cut].id or ""}
        async with served.stream(path(LOGGED, A), headers=headers) as events:
            await opened(events)
            rest = await messages(events, 12 - cut - 1)
        for uri, bodies in every.items():
            assert [body for source, body in rest if source == uri] == bodies[before[uri] :]
        async with served.stream(path(A, LOGGED, last_event_id=headers["last-event-id"])) as events:
            assert sorted(await messages(events, 12 - cut - 1)) == sorted(rest)


async def test_what_came_to_the_url_since_is_a_gap_and_the_others_go_on(served: Served) -> None:
    async with served.stream(path(SMALL)) as keeps_the_ring, served.stream(path(A, B)) as events:
        await opened(keeps_the_ring)
        position = await opened(events)
        for uri in (A, B, SMALL):
            await put(served, uri, "1")
        async with served.stream(path(SMALL, B), headers={"last-event-id": position}) as other:
            assert sorted(await messages(other, 3)) == [(SMALL, "1"), (SMALL, "gap restart"), (B, "1")]
        async with served.stream(path(B), headers={"last-event-id": position}) as other:
            assert await messages(other, 1) == [(B, "1")]
            await put(served, A, "2")
            await put(served, B, "2")
            assert await messages(other, 1) == [(B, "2")]


@pytest.mark.parametrize("position", ["epochepo.1", "s.1", "v.", "v.AAAAAAs.1,", "x" * 5000, "é", "earliest"])
async def test_sse_case_28_a_foreign_position_is_a_gap_in_every_topic_and_nothing_in_a_queue(
    served: Served, position: str
) -> None:
    async with served.stream(path(A, LOGGED)) as keeps_the_ring:
        await opened(keeps_the_ring)
        for uri in (A, LOGGED, JOBS):
            await put(served, uri, "kept")
        headers = {"last-event-id": position.encode()}
        async with served.stream(path(A, LOGGED, JOBS), headers=headers) as events:
            seen = await messages(events, 5)
    for uri in (A, LOGGED):
        assert [body for source, body in seen if source == uri] == ["gap restart", "kept"]
    assert [body for source, body in seen if source == JOBS] == ["kept"]


async def test_an_id_of_one_of_them_alone_is_foreign_and_so_is_theirs_to_it(served: Served) -> None:
    one = "/mq/demo/Topics/events/events"
    async with served.stream(path(A)) as events, served.stream(one) as single:
        joint, alone = await opened(events), await opened(single)
        await put(served, A, "x")
        for target, position in ((path(A), alone), (f"{one}?format=envelope", joint)):
            async with served.stream(target, headers={"last-event-id": position}) as other:
                assert await messages(other, 2) == [(A, "gap restart"), (A, "x")]


async def test_a_gap_is_of_one_destination_and_says_how_much(served: Served) -> None:
    async with served.stream(path(SMALL, A)) as events:
        position = await opened(events)
        for number in range(10):
            await put(served, SMALL, str(number))
        await put(served, A, "x")
        async with served.stream(path(SMALL, A), headers={"last-event-id": position}) as other:
            gap = await other.message()
            assert gap.json == {"mq_uri": SMALL, "reason": "expired", "missed": 6}
            rest = await messages(other, 5)
            assert [body for source, body in rest if source == SMALL] == ["6", "7", "8", "9"]
            assert (A, "x") in rest
        # The gap was told, and is not again to whoever saw no more than that.
        async with served.stream(path(SMALL, A), headers={"last-event-id": gap.id or ""}) as other:
            assert sorted(await messages(other, 5)) == sorted(rest)


async def test_from_is_for_each(served: Served) -> None:
    async with served.stream(path(A)) as keeps_the_ring:
        await opened(keeps_the_ring)
        for uri in (A, LOGGED):
            await put(served, uri, "old")
        async with served.stream(path(A, LOGGED, **{"from": "earliest"})) as events:
            assert sorted(await messages(events, 2)) == [(A, "old"), (LOGGED, "old")]
        async with served.stream(path(A, LOGGED)) as events:
            await opened(events)
            await put(served, A, "new")
            assert await messages(events, 1) == [(A, "new")]


async def test_before_the_first_event_of_a_stream_it_begins_as_it_was_asked(served: Served) -> None:
    """`from=earliest` of a stream has no position before its first message; its id of then means the same again."""
    target = path(A, LOGGED, **{"from": "earliest"})
    async with served.stream(target) as events:
        await opened(events)
        await put(served, A, "x")
        first = await events.message()
    await put(served, LOGGED, "y")
    async with served.stream(target, headers={"last-event-id": first.id or ""}) as events:
        assert await messages(events, 1) == [(LOGGED, "y")]


async def test_the_link_of_each_service_is_told_of_once(served: Served) -> None:
    async with served.stream(path(A, SMALL, B, status="true")) as events:
        await opened(events)
        for service in ("other", "demo"):
            served.gateway._streams.tell_link(service, LinkState.DOWN)
        seen = [await events.message() for _ in range(2)]
        assert [event.event for event in seen] == ["status", "status"]
        assert sorted(event.json["service"] for event in seen) == ["demo", "other"]
        assert {(event.json["link"], event.id) for event in seen} == {("down", None)}
        await put(served, SMALL, "x")
        assert await messages(events, 1) == [(SMALL, "x")]


async def test_leases_of_several_queues(served: Served) -> None:
    async with served.stream(path(JOBS, WORK, ack="explicit")) as events:
        leases = [await events.message() for _ in range(2)]
        assert [event.event for event in leases] == ["lease", "lease"]
        urls = {event.json["mq_uri"]: event.json["ack_url"] for event in leases}
        assert urls == {JOBS: "/mq/demo/Queues/jobs/ack", WORK: "/mq/other/Queues/work/ack"}
        for uri in (JOBS, WORK):
            await put(served, uri, uri)
        for event in [await events.message() for _ in range(2)]:
            source = event.json["mq_uri"]
            assert (event.json["body"], event.json["id"]) == (source, event.id)
            answer = await served.client.post(urls[source], params={"lease": event.id or ""})
            assert answer.json()["results"][0]["result"] == "done"


async def test_what_a_queue_gave_to_a_stream_that_has_gone_comes_back(served: Served) -> None:
    async with served.stream(path(A, JOBS, ack="auto")) as events:
        await opened(events)
    await until(lambda: not served.metric("mq_gateway_streams", service="demo", type="Queues"))
    await put(served, JOBS, "x")
    async with served.stream(path(A, JOBS)) as events:
        assert await messages(events, 1) == [(JOBS, "x")]


async def test_all_that_is_wrong_is_one_problem(served: Served) -> None:
    wrong = ["demo::Topics::nope", "nope::Queues::x", "demo::Topics::event"]
    answer = await served.client.get(path(A, *wrong))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (404, "unknown_service")
    assert [error["where"] for error in problem["errors"]] == ["uri[1]", "uri[2]", "uri[3]"]
    assert all(any(uri in error["message"] for error in problem["errors"]) for uri in (wrong[0], wrong[2]))
    assert "'events'" in problem["errors"][2]["message"]
    answer = await served.client.get(path(A, wrong[0], "demo::Topics::a*"), headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_name")


async def test_sse_case_08_sse_case_44_no_more_destinations_than_a_stream_may_have(served: Served) -> None:
    async with serving({"demo": {"mq_type": "Memory", "allow_undeclared": True}}) as other:
        uris = [f"demo::Topics::{'é' * 100}{number}" for number in range(33)]
        async with other.stream(path(*uris[:32])) as events:
            position = await opened(events)
            assert 32 * 16 < len(position) <= 1024
            for uri in uris[:32]:
                await put(other, uri, uri)
            assert {source for source, _ in await messages(events, 32)} == set(uris[:32])
        async with other.stream(path(*uris[:32]), headers={"last-event-id": position}) as events:
            assert {source for source, _ in await messages(events, 32)} == set(uris[:32])
        answer = await other.client.get(path(*uris))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
        assert "32" in answer.json()["detail"]


async def test_a_busy_topic_starves_nobody(served: Served) -> None:
    """The quiet one's event comes while the busy one has far more than a reader can take."""
    async with serving({"demo": {"mq_type": "Memory", "topics": {"busy": {}, "quiet": {}}}}) as other:
        busy, quiet = "demo::Topics::busy", "demo::Topics::quiet"
        async with other.stream(path(busy, quiet)) as events:
            await opened(events)
            flooding = asyncio.ensure_future(_flood(other, busy))
            try:
                for number in range(20):
                    await messages(events, 5)
                    await put(other, quiet, str(number))
                    behind = 0
                    while (await messages(events, 1)) != [(quiet, str(number))]:
                        behind += 1
                    assert behind < 1500
            finally:
                flooding.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await flooding


async def test_a_reader_that_takes_nothing_is_cut_off_and_delays_nobody(served: Served) -> None:
    stalled = await Sse.open(served.port, path(A, JOBS, LOGGED), receive_buffer=4096)
    try:
        async with served.stream(path(LOGGED, A)) as events:
            await opened(events)
            for number in range(40):
                await put(served, A, f"{number} " + "x" * 100_000)
            assert [body.split()[0] for _, body in await messages(events, 40)] == [str(number) for number in range(40)]
            await until(lambda: served.metric("mq_gateway_streams_closed_total", reason="stalled"))
            await until(lambda: not served.metric("mq_gateway_streams", service="demo", type="Queues"))
            await put(served, LOGGED, "still here")
            assert await messages(events, 1) == [(LOGGED, "still here")]
    finally:
        stalled.close()


async def test_at_the_end_of_the_gateway_all_that_is_queued_comes_first(served: Served) -> None:
    async with served.stream(path(A, B, LOGGED, JOBS)) as events:
        await opened(events)
        for uri in (A, B, LOGGED):
            await put(served, uri, "last words")
        await served.gateway.drain()
        await put_refused(served, A)
        rest = await events.rest()
        assert {told(event) for event in rest if event.data} == {(uri, "last words") for uri in (A, B, LOGGED)}
        assert rest[-1].retry is not None


async def put_refused(served: Served, uri: str) -> None:
    answer = await served.client.post(f"/mq/{uri.replace('::', '/')}", content=b"x")
    assert answer.json()["code"] == "draining"


async def _flood(served: Served, uri: str) -> None:
    while True:
        await put(served, uri, "x" * 100)


async def test_sse_case_27_many_cuts_make_no_hole_and_no_repeat(served: Served) -> None:
    """Cut at random places, with Topics that come and go in the URL."""
    topics, total = [A, B, LOGGED], 60
    chance = random.Random(7)
    async with served.stream(path(*topics)) as keeps_the_rings:
        await opened(keeps_the_rings)
        publishing = asyncio.gather(*(_publish(served, uri, total) for uri in topics))
        got: dict[str, list[str]] = {uri: [] for uri in topics}
        last = ""
        async with served.stream(path(*topics)) as first:
            last = await opened(first)
            # What was published before the first id is nobody's.
            begun = await _collect(first, got, 5)
            last = begun or last
        while sum(map(len, got.values())) < total * len(topics) and not _complete(got, total):
            chance.shuffle(topics)
            async with served.stream(path(*topics), headers={"last-event-id": last}) as events:
                last = await _collect(events, got, chance.randrange(1, 30)) or last
        await publishing
    for uri in topics:
        first_number = int(got[uri][0])
        assert got[uri] == [str(number) for number in range(first_number, total)], uri


async def _publish(served: Served, uri: str, total: int) -> None:
    for number in range(total):
        await put(served, uri, str(number))


def _complete(got: dict[str, list[str]], total: int) -> bool:
    return all(bodies and bodies[-1] == str(total - 1) for bodies in got.values())


async def _collect(events: Events, got: dict[str, list[str]], number: int) -> str | None:
    """The id of the last of these many events, fewer where all have come."""
    last = None
    for _ in range(number):
        if _complete(got, 60):
            break
        event = await events.message()
        uri, body = told(event)
        assert event.event is None, (uri, body)
        got[uri].append(body)
        last = event.id
    return last
