"""A real browser's EventSource: what it shows of every body, how it resumes, and what it is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.process import free_port
from tests.e2e.bodies import HARD, as_event
from tests.e2e.chromium import Chromium, chromium
from tests.e2e.conftest import Target
from tests.e2e.http_client import eventually, get_json, post
from tests.e2e.live_gateway import MEMORY, running, write_config
from tests.e2e.relay import EmptyPage, Relay

__all__ = ["chromium"]

pytestmark = pytest.mark.browser


async def test_sse_case_03_sse_case_04_sse_case_67_hard_bodies(
    target: Target, chromium: Chromium, stomp_client: ConnectStomp, unique: Unique
) -> None:
    topic = unique("hard")
    client = await stomp_client(target.broker)
    async with chromium.page(f"http://127.0.0.1:{target.port}/") as page:
        await page.listen(f"/mq/mq/Topics/{topic}/events")
        assert (await page.seen(1))[0] == {"name": "open"}
        for body in HARD.values():
            await client.send(f"/topic/{topic}", body)
        events = (await page.seen(len(HARD) + 1))[1:]
        for (name, body), event in zip(HARD.items(), events, strict=True):
            assert (event["name"], event["data"]) == as_event(body), name
        ids = [event["id"] for event in events]
        assert len(set(ids)) == len(ids)
        assert len({position.rpartition(".")[0] for position in ids}) == 1
        large = "line\n" * 800_000
        assert (await post(target.port, f"/mq/mq/Topics/{topic}", large)).status == 200
        await page.seen(len(HARD) + 2)
        assert await page.run("events.at(-1).data === 'line\\n'.repeat(800000)")


async def test_sse_case_67_it_resumes_after_its_connection_was_cut(
    target: Target, chromium: Chromium, unique: Unique
) -> None:
    path = f"/mq/mq/Topics/{unique('resumed')}"
    relay = Relay(target.port)
    async with relay.listening() as port, chromium.page(f"http://127.0.0.1:{port}/") as page:
        await page.listen(f"{path}/events")
        await page.seen(1)
        # Cut before its first event: the opening id alone lets it resume.
        await relay.cut()
        assert (await post(target.port, path, "one")).status == 200
        events = await page.seen(4)
        assert [event["name"] for event in events] == ["open", "error", "open", "message"]
        assert (events[1]["state"], events[3]["data"]) == (0, "one")
        await relay.cut()
        for body in ("two\nand a half", "three"):
            assert (await post(target.port, path, body)).status == 200
        events = await page.seen(8)
        assert [event.get("data") for event in events[4:]] == [None, None, "two\nand a half", "three"]


async def test_sse_case_67_it_resumes_in_all_of_several_topics(
    target: Target, chromium: Chromium, unique: Unique
) -> None:
    """The id of them all is one value to it, sent back as it is."""
    one, two = f"mq::Topics::{unique('one')}", f"mem::Topics::{unique('two')}"
    paths = [f"/mq/{uri.replace('::', '/')}" for uri in (one, two)]
    relay = Relay(target.port)
    async with relay.listening() as port, chromium.page(f"http://127.0.0.1:{port}/") as page:
        await page.listen(f"/events?uri={one}&uri={two}")
        await page.seen(1)
        seen: list[tuple[str, str]] = []
        for round_ in range(3):
            await relay.cut()
            for path in paths:
                for number in range(2):
                    assert (await post(target.port, path, f"{round_}{number}")).status == 200
            before = 1 + len(seen) + 2 * round_
            events = (await page.seen(before + 6))[before:]
            assert [event["name"] for event in events[:2]] == ["error", "open"]
            assert {event["name"] for event in events[2:]} == {"message"}
            values = [json.loads(event["data"]) for event in events[2:]]
            assert [value["id"] for value in values] == [event["id"] for event in events[2:]]
            seen += [(value["mq_uri"], value["body"]) for value in values]
    for uri in (one, two):
        bodies = [body for source, body in seen if source == uri]
        assert bodies == [f"{round_}{number}" for round_ in range(3) for number in range(2)]


async def test_sse_case_28_a_gap_is_an_event_it_can_read(target: Target, chromium: Chromium) -> None:
    async with chromium.page(f"http://127.0.0.1:{target.port}/") as page:
        await page.listen("/mq/mq/Topics/small/events?last_event_id=foreign.1")
        gap = (await page.seen(2))[1]
        assert gap["name"] == "gap"
        assert json.loads(gap["data"]) == {"mq_uri": "mq::Topics::small", "reason": "restart", "missed": None}
        assert gap["id"]


async def test_sse_case_37_it_comes_back_by_itself_when_the_broker_does_not(tmp_path: Path, chromium: Chromium) -> None:
    """An error status would end it for good; `event: unavailable` lets it come back."""
    dead = {"mq_type": "Stomp", "host": "127.0.0.1", "port": free_port(), "allow_undeclared": True}
    slow: dict[str, Any] = {**dead, "reconnect": {"initial": 1, "max": 1}}
    async with running(write_config(tmp_path, {"dead": slow, "mem": MEMORY})) as gateway:
        await gateway.until_link("dead", lambda view: view["last_error"] is not None)
        async with chromium.page(f"http://127.0.0.1:{gateway.port}/") as page:
            await page.listen("/mq/dead/Topics/a/events")
            events = await page.seen(6)
            names = [event["name"] for event in events]
            assert names[:6] == ["open", "unavailable", "error"] * 2
            assert {event["state"] for event in events if event["name"] == "error"} == {0}
            notice = json.loads(events[1]["data"])
            assert notice["code"] == "broker_unavailable"
            assert notice["retry_ms"] >= 1000
            # What is wrong for good ends it: the page learns by readyState 2.
            await page.listen("/mq/none/Topics/a/events")
            assert await page.seen(1) == [{"name": "error", "state": 2}]


async def test_sse_case_54_sse_case_57_pages_of_other_origins(tmp_path: Path, chromium: Chromium) -> None:
    async with EmptyPage().listening() as one, EmptyPage().listening() as other:
        friend, stranger = f"http://127.0.0.1:{one}", f"http://127.0.0.1:{other}"
        config = write_config(tmp_path, {"mem": MEMORY}, server={"allowed_origins": [friend]})
        async with running(config) as gateway:
            base = f"http://127.0.0.1:{gateway.port}/mq/mem"
            async with chromium.page(f"{friend}/") as page:
                await page.listen(f"{base}/Topics/news/events")
                await page.seen(1)
                assert await page.run(_publish(f"{base}/Topics/news", "hello")) == 200
                assert (await page.seen(2))[1]["data"] == "hello"
                assert await page.run(_publish(f"{base}/Queues/jobs", "for the friend")) == 200
                await page.listen(f"{base}/Queues/jobs/events")
                assert (await page.seen(2))[1]["data"] == "for the friend"

            # The tab is closed; its stream would still take the next message until the gateway has noticed.
            async def nobody_reads() -> bool:
                return not (await get_json(gateway.port, "/mq/mem/Queues/jobs"))["readers"]

            await eventually(nobody_reads, "the end of the closed tab's stream")
            assert (await post(gateway.port, "/mq/mem/Queues/jobs", b"not for strangers")).status == 200
            async with chromium.page(f"{stranger}/") as page:
                for path in ("Topics/news", "Queues/jobs"):
                    await page.listen(f"{base}/{path}/events")
                    assert (await page.seen(1))[0] == {"name": "error", "state": 2}
                # Neither a simple request, which needs no preflight, nor a link or an image takes anything.
                simple = "{method: 'POST', body: 'x', mode: 'no-cors'}"
                # It arrives and is refused, and that it was is not for the page to know.
                sent = f"fetch('{base}/Queues/jobs', {simple}).then((answer) => answer.status, () => 'refused')"
                assert await page.run(sent) == "refused"
                image = f"image.onerror = () => done(1); image.src = '{base}/Queues/jobs/events'"
                assert await page.run(f"new Promise((done) => {{ const image = new Image(); {image} }})") == 1
            async with chromium.page(f"http://127.0.0.1:{gateway.port}/") as page:
                await page.listen("/mq/mem/Queues/jobs/events")
                assert (await page.seen(2))[1]["data"] == "not for strangers"
                # Nothing else is in the queue: the stranger published nothing.
                assert (await post(gateway.port, "/mq/mem/Queues/jobs", b"end")).status == 200
                assert (await page.seen(3))[2]["data"] == "end"


def _publish(url: str, body: str) -> str:
    headers = '{"Content-Type": "text/plain", "Mq-Header-Colour": "red"}'
    return f"fetch('{url}', {{method: 'POST', body: '{body}', headers: {headers}}}).then((answer) => answer.status)"
