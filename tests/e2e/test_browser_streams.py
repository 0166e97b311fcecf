"""What a real browser makes of the ways in which a stream arrives, is refused, and crosses origins."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.chromium import Chromium, chromium
from tests.e2e.http_client import Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, running, write_config
from tests.e2e.relay import EmptyPage, Relay

__all__ = ["chromium"]

pytestmark = pytest.mark.browser

NEWS = "/mq/mem/Topics/news"
#: Milliseconds until a promise is settled, and its value.
TIMED = "(async (begun) => {{ const value = await {}; return [value, performance.now() - begun]; }})(performance.now())"


async def test_sse_case_17_an_idle_stream_is_open_at_once(tmp_path: Path, chromium: Chromium) -> None:
    """With a heartbeat of a minute: what opens it is the byte that comes with the head."""
    async with (
        running(write_config(tmp_path, {"mem": MEMORY}, server={"heartbeat": 60})) as gateway,
        chromium.page(f"http://127.0.0.1:{gateway.port}/") as page,
    ):
        status, milliseconds = await page.run(TIMED.format(f"fetch('{NEWS}/events').then((answer) => answer.status)"))
        assert status == 200
        assert milliseconds < 2000
        opens = f"new Promise((done) => {{ new EventSource('{NEWS}/events').onopen = () => done('open'); }})"
        opened, milliseconds = await page.run(TIMED.format(opens))
        assert opened == "open"
        assert milliseconds < 2000


async def test_sse_case_15_sse_case_24_however_the_bytes_arrive_the_events_are_the_same(
    tmp_path: Path, chromium: Chromium
) -> None:
    """Several in one segment, one in as many segments as it has bytes, and comments all the while."""
    async with running(write_config(tmp_path, {"mem": MEMORY}, server={"heartbeat": 0.05})) as gateway:
        relay = Relay(gateway.port)
        async with relay.listening() as port, chromium.page(f"http://127.0.0.1:{port}/") as page:
            await page.listen(f"{NEWS}/events")
            await page.seen(1)
            relay.hold()
            for body in ("one", "two\nlines", "three"):
                assert (await post(gateway.port, NEWS, body)).status == 200

            async def delivered() -> bool:
                return await gateway.metric("mq_gateway_events_delivered_total", service="mem", type="Topics") == 3

            await eventually(delivered, "three events on their way")
            assert await page.run("events.length") == 1
            relay.release()
            events = (await page.seen(4))[1:]
            assert [event["data"] for event in events] == ["one", "two\nlines", "three"]
            relay.pieces = True
            hard = "\u00e9\r\n\U0001f600\r: x"
            assert (await post(gateway.port, NEWS, hard)).status == 200
            event = (await page.seen(5))[-1]
            assert event["data"] == "\u00e9\n\U0001f600\n: x"
            assert [each["id"].rpartition(".")[2] for each in [*events, event]] == ["1", "2", "3", "4"]
            # Comments went on meanwhile, and nothing more was fired.
            await asyncio.sleep(0.3)
            assert await page.run("[events.length, source.readyState]") == [5, 1]


async def test_sse_case_36_what_is_not_there_ends_it_for_good(tmp_path: Path, chromium: Chromium) -> None:
    services = {"mem": {"mq_type": "Memory", "topics": {"news": {}}}}
    async with running(write_config(tmp_path, services)) as gateway:
        relay = Relay(gateway.port)
        async with relay.listening() as port, chromium.page(f"http://127.0.0.1:{port}/") as page:
            await page.listen("/mq/mem/Topics/gone/events")
            assert await page.seen(1) == [{"name": "error", "state": 2}]
            # The present one next to it is open, and the other one did not come back meanwhile.
            await page.listen(f"{NEWS}/events")
            await page.seen(1)
            asked = [request.split(" ")[1] for request in relay.requests if "/events" in request]
            assert asked == ["/mq/mem/Topics/gone/events", f"{NEWS}/events"]


async def test_sse_case_37_a_full_gateway_is_tried_again_until_there_is_a_place(
    tmp_path: Path, chromium: Chromium
) -> None:
    config = write_config(tmp_path, {"mem": MEMORY}, limits={"streams": 1})
    async with (
        running(config) as gateway,
        await Sse.open(gateway.port, f"{NEWS}/events") as holds,
        chromium.page(f"http://127.0.0.1:{gateway.port}/") as page,
    ):
        await page.listen(f"{NEWS}/events")
        events = await page.seen(3)
        assert [event["name"] for event in events] == ["open", "unavailable", "error"]
        assert json.loads(events[1]["data"])["code"] == "too_many_streams"
        assert events[2]["state"] == 0, "it would not come back"
        holds.reset()

        async def back() -> bool:
            return bool(await page.run("events.at(-1).name === 'open' && source.readyState === 1"))

        await eventually(back, "the browser on the free place")
        assert (await post(gateway.port, NEWS, "at last")).status == 200

        async def shown() -> bool:
            return bool(await page.run("events.at(-1).data === 'at last'"))

        await eventually(shown, "the event in the browser")


async def test_sse_case_54_sse_case_55_a_listed_origin_may_read_with_credentials_and_without_a_preflight(
    tmp_path: Path, chromium: Chromium
) -> None:
    async with EmptyPage().listening() as one, EmptyPage().listening() as other:
        friend, stranger = f"http://127.0.0.1:{one}", f"http://127.0.0.1:{other}"
        config = write_config(tmp_path, {"mem": MEMORY}, server={"allowed_origins": [friend]})
        async with running(config) as gateway:
            relay = Relay(gateway.port)
            async with relay.listening() as port:
                url = f"http://127.0.0.1:{port}{NEWS}/events"
                async with chromium.page(f"{friend}/") as page:
                    await page.run(f"window.got = {WITH_CREDENTIALS}('{url}'), 1")
                    await page.run("got.opened")
                    assert (await post(gateway.port, NEWS, "first")).status == 200
                    assert await page.run("got.next()") == "first"
                    # Cut off, it comes back by itself and says where it was.
                    await relay.cut()
                    assert (await post(gateway.port, NEWS, "second")).status == 200
                    assert await page.run("got.next()") == "second"
                    assert [request.split(" ")[0] for request in relay.requests] == ["GET", "GET"]
                    assert "\r\nlast-event-id: " in relay.requests[1].lower()
                    assert f"\r\nOrigin: {friend}\r\n" in relay.requests[1]
                    # A client made of fetch has a preflight, and may set what it needs.
                    needs = "{Authorization: 'Bearer x', 'Last-Event-ID': 'a.1', 'Cache-Control': 'no-cache'}"
                    options = f"{{headers: {needs}, credentials: 'include'}}"
                    read = (
                        f"fetch('{url}', {options}).then((a) => a.body.getReader().read()).then((r) => r.value.length)"
                    )
                    assert await page.run(read) > 0
                    assert [request.split(" ")[0] for request in relay.requests[2:]] == ["OPTIONS", "GET"]
                async with chromium.page(f"{stranger}/") as page:
                    failed = f"new Promise((done) => {{ const s = new EventSource('{url}', {{withCredentials: true}});"
                    failed += " s.onerror = () => done(s.readyState); })"
                    assert await page.run(failed) == 2


WITH_CREDENTIALS = """
((url) => {
  const source = new EventSource(url, {withCredentials: true});
  const queue = [], waiting = [];
  source.onmessage = (event) => waiting.length ? waiting.shift()(event.data) : queue.push(event.data);
  return {
    opened: new Promise((resolve) => { source.onopen = () => resolve(source.withCredentials); }),
    next: () => queue.length ? queue.shift() : new Promise((resolve) => waiting.push(resolve)),
  };
})
"""
