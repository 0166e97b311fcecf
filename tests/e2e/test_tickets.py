"""Tickets: one stream of exactly what they name, soon, and nothing else; and nobody writes one down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from app.auth import tickets
from app.auth.sessions import COOKIE
from tests.e2e.callers import REVOKED_WITHIN, Callers, bearer, cookie, known
from tests.e2e.http_gateway import Served, serving, until

EVENTS = "/mq/demo/Topics/events/events"
ORIGIN = "https://dash.example"
SOURCE = {"Accept": "text/event-stream"}


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
async def alice(callers: Callers) -> str:
    return callers.add("alice")


@pytest.fixture
async def served(callers: Callers, alice: str) -> AsyncIterator[Served]:
    async with serving(auth=callers.auth(), allowed_origins=[ORIGIN]) as gateway:
        yield gateway


async def _ticket(served: Served, headers: dict[str, str], *uris: str) -> str:
    answer = await served.client.post("/ticket", json={"uris": uris or ["demo::Topics::events"]}, headers=headers)
    assert answer.status_code == 200, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


async def _closed(served: Served) -> None:
    """Wait until no stream is open: the end of one is known a moment after its client has gone."""
    await until(lambda: served.app.state.context.streams == 0)


async def _refused(served: Served, target: str, headers: dict[str, str] | None = None) -> httpx.Response:
    answer = await served.client.get(target, headers=headers)
    assert answer.status_code == 401, (target, answer.text)
    return answer


async def test_it_opens_one_stream_and_no_second(served: Served, alice: str) -> None:
    url = f"{EVENTS}?ticket={await _ticket(served, bearer(alice))}"
    async with served.stream(url, headers={"Origin": ORIGIN} | SOURCE) as events:
        assert events.response.status_code == 200
        assert events.response.headers["access-control-allow-origin"] == ORIGIN
        await events.next()
        await served.client.post("/mq/demo/Topics/events", content=b"1", headers=bearer(alice))
        assert (await events.message()).data == "1"
        await _refused(served, url)
        await _refused(served, url, {"Last-Event-ID": "x.1"})
    await _closed(served)
    await _refused(served, url)


async def test_with_a_position_it_comes_back_as_often_as_the_connection_is_lost(served: Served, alice: str) -> None:
    url = f"{EVENTS}?ticket={await _ticket(served, bearer(alice))}"
    position = ""
    for number in range(3):
        headers = {"Last-Event-ID": position} if position else {}
        async with served.stream(url, headers=headers) as events:
            assert events.response.status_code == 200
            await events.next()
            await served.client.post("/mq/demo/Topics/events", content=b"%d" % number, headers=bearer(alice))
            event = await events.message()
            assert event.data == f"{number}"
            position = event.id or ""
            assert position
        await _closed(served)
    await _refused(served, f"{url}&last_event_id={position}")
    await _refused(served, url, {"Last-Event-ID": ""})


async def test_a_minute_after_its_end_it_is_over(served: Served, alice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "RETURN_SECONDS", 0.0)
    url = f"{EVENTS}?ticket={await _ticket(served, bearer(alice))}"
    async with served.stream(url) as events:
        await events.next()
    await _closed(served)
    await _refused(served, url, {"Last-Event-ID": "x.1"})


async def test_it_does_not_outlive_its_token(served: Served, callers: Callers) -> None:
    token = callers.add("carol", seconds=4.0)
    await known(served.client, token)
    url = f"{EVENTS}?ticket={await _ticket(served, bearer(token))}"
    async with served.stream(url) as events:
        async with asyncio.timeout(REVOKED_WITHIN + 4):
            await events.rest()
    await _closed(served)
    await _refused(served, url, {"Last-Event-ID": "x.1"})


async def test_it_ends_with_the_session_it_came_from(served: Served, alice: str) -> None:
    signed_in = await served.client.post("/session", headers=bearer(alice))
    served.client.cookies.clear()
    value = signed_in.headers["set-cookie"].partition(";")[0].removeprefix(f"{COOKIE}=")
    used, unused = await _ticket(served, cookie(value)), await _ticket(served, cookie(value))
    async with served.stream(f"{EVENTS}?ticket={used}") as events:
        await events.next()
        await served.client.delete("/session", headers=cookie(value))
        async with asyncio.timeout(REVOKED_WITHIN):
            await events.rest()
    await _closed(served)
    await _refused(served, f"{EVENTS}?ticket={used}", {"Last-Event-ID": "x.1"})
    await _refused(served, f"{EVENTS}?ticket={unused}")


async def test_it_ends_with_its_token(served: Served, callers: Callers, alice: str) -> None:
    used, unused = await _ticket(served, bearer(alice)), await _ticket(served, bearer(alice))
    async with served.stream(f"{EVENTS}?ticket={used}") as events:
        await events.next()
        callers.revoke("alice")
        async with asyncio.timeout(REVOKED_WITHIN):
            await events.rest()
    await _refused(served, f"{EVENTS}?ticket={unused}")


async def test_it_opens_nothing_that_it_does_not_name(served: Served, alice: str) -> None:
    ticket = await _ticket(served, bearer(alice), "demo::Topics::events", "demo::Queues::jobs")
    both = "uri=demo::Topics::events&uri=demo::Queues::jobs"
    for target in (
        f"/mq/demo/Topics/small/events?ticket={ticket}",
        f"{EVENTS}?ticket={ticket}",
        f"/mq/demo/Queues/jobs/events?ticket={ticket}",
        f"/events?uri=demo::Topics::events&ticket={ticket}",
        f"/events?{both}&uri=demo::Topics::small&ticket={ticket}",
        f"/events?ticket={ticket}",
        f"{EVENTS}?ticket={ticket}x",
        f"{EVENTS}?ticket=",
    ):
        await _refused(served, target)
    async with served.stream(f"/events?{both}&ticket={ticket}") as events:
        assert events.response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/mq/demo/Topics/events"),
        ("POST", "/mq/demo/Topics/events/batch"),
        ("POST", "/mq/demo/Queues/jobs/receive"),
        ("POST", "/mq/demo/Queues/jobs/ack"),
        ("GET", "/mq/demo/Topics/events"),
        ("GET", "/mq"),
        ("GET", "/session"),
        ("POST", "/session"),
        ("POST", "/ticket"),
        ("GET", "/metrics"),
    ],
)
async def test_it_is_for_streams_only(served: Served, alice: str, method: str, path: str) -> None:
    ticket = await _ticket(served, bearer(alice), "demo::Topics::events", "demo::Queues::jobs")
    answer = await served.client.request(method, f"{path}?ticket={ticket}")
    assert answer.status_code in (400, 401)
    assert ticket not in answer.text
    as_bearer = await served.client.request(method, path, headers=bearer(ticket))
    assert as_bearer.status_code == 401


async def test_whoever_shows_a_token_is_not_the_tickets(served: Served, callers: Callers, alice: str) -> None:
    """Authorization decides, also where it does not hold."""
    ticket = await _ticket(served, bearer(alice))
    await _refused(served, f"{EVENTS}?ticket={ticket}", bearer("mqg_" + "c" * 43))


async def test_nobody_gets_one_for_what_he_may_not_read(served: Served, callers: Callers) -> None:
    token = callers.add("bob")
    await known(served.client, token)
    for uri in ("demo::Topics::events", "demo::Queues::jobs", "demo::Topics::nowhere", "else::Topics::x"):
        answer = await served.client.post(f"/ticket?uri={uri}", headers=bearer(token))
        assert answer.status_code == 403, answer.text
    assert (await served.client.post("/ticket?uri=demo::Topics::events")).status_code == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"uris": []}', b'{"uris": "demo::Topics::events"}', b'{"uris": [1]}', b"x",
     b'{"uris": ["demo::Topics::events"], "more": 1}', b'{"uris": ["demo"]}'],
)  # fmt: skip
async def test_what_asks_for_none_gets_none(served: Served, alice: str, body: bytes) -> None:
    answer = await served.client.post("/ticket", content=body, headers=bearer(alice))
    assert answer.status_code == 400


async def test_as_many_destinations_as_a_stream_may_have(served: Served, alice: str) -> None:
    uris = "&".join(f"uri=demo::Topics::t{number}" for number in range(33))
    assert (await served.client.post(f"/ticket?{uris}", headers=bearer(alice))).status_code == 400


async def test_several_destinations_come_back_with_their_vector(served: Served, alice: str) -> None:
    uris = ("demo::Topics::events", "demo::Topics::small")
    query = "&".join(f"uri={uri}" for uri in uris)
    url = f"/events?{query}&ticket={await _ticket(served, bearer(alice), *uris)}"
    async with served.stream(url) as events:
        await events.next()
        await served.client.post("/mq/demo/Topics/small", content=b'"a"', headers=bearer(alice))
        first = await events.message()
    await _closed(served)
    await served.client.post("/mq/demo/Topics/events", content=b'"b"', headers=bearer(alice))
    async with served.stream(url, headers={"Last-Event-ID": first.id or ""}) as events:
        assert events.response.status_code == 200
        assert (await events.message()).json["mq_uri"] == "demo::Topics::events"


async def test_where_there_was_no_stream_it_is_as_before(callers: Callers, alice: str) -> None:
    """An EventSource is told to come back; it has no position that it could come back with."""
    async with serving(auth=callers.auth(), limits={"streams": 1}) as served:
        url = f"{EVENTS}?ticket={await _ticket(served, bearer(alice))}"
        async with served.stream(EVENTS, headers=bearer(alice)) as other:
            await other.next()
            full = await served.client.get(url, headers=SOURCE)
            assert (full.status_code, "event: unavailable" in full.text) == (200, True)
        await _closed(served)
        await served.gateway.drain()
        draining = await served.client.get(url, headers=SOURCE)
        assert (draining.status_code, "event: unavailable" in draining.text) == (200, True)
        assert served.app.state.context.authority.tickets.check(
            url.partition("ticket=")[2], ["demo::Topics::events"], returning=False
        )


async def test_nobody_writes_it_down(served: Served, alice: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ticket = await _ticket(served, bearer(alice))
    value = (await served.client.post("/session", headers=bearer(alice))).cookies.get(COOKIE) or "?"
    shown = [f"{EVENTS}?ticket={ticket}", f"/mq/demo/Topics/small/events?ticket={ticket}", f"/nowhere?ticket={ticket}"]
    bodies = []
    async with served.stream(shown[0]) as events:
        await events.next()
    await _closed(served)
    targets = [*shown, f"{EVENTS}?from=never&ticket={ticket}", f"/mq/demo/x/y?ticket={ticket}"]
    bodies += [(await served.client.get(target)).text for target in targets]
    bodies.append((await served.raw(f"GET {shown[0]}\x01 HTTP/1.1\r\nHost: x\r\n\r\n".encode())).decode())
    bodies.append(
        (await served.raw(f"GET {shown[0]} HTTP/1.1\r\nHost: x\r\nX: {'y' * 70_000}\r\n\r\n".encode())).decode()
    )
    metrics = await served.client.get("/metrics", headers=bearer(alice))
    bodies.append(metrics.text)
    bodies.append((await served.client.get("/mq", headers=bearer(alice))).text)
    assert metrics.status_code == 200
    secret = ticket.rpartition(".")[2]
    for text in (*bodies, *(record.getMessage() for record in caplog.records if record.name.startswith("mq_gateway"))):
        assert secret not in text
        assert quote(secret) not in text
        assert alice not in text
        assert value not in text
