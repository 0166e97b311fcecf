"""The life of an event stream where no broker matters: replay, heartbeats, its end, and who may open one."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from app.config.server import ServerSettings
from tests.e2e.http_client import Http, RecordedSse, Sse, ask, eventually, post
from tests.e2e.http_gateway import serving
from tests.e2e.live_gateway import MEMORY, ROOT, running, write_config
from tests.gateway_process import child_environment

PLAIN = {"Content-Type": "text/plain"}
JOBS, NEWS = "/mq/mem/Queues/jobs", "/mq/mem/Topics/news"
ORIGIN, STRANGER = "http://dash.example", "http://evil.example"


def memory(**topic: Any) -> dict[str, Any]:
    return {"mem": {**MEMORY, "topics": {"news": topic}}}


async def fill(port: int, bodies: list[bytes]) -> None:
    async with await Http.connect(port) as http:
        for body in bodies:
            assert (await http.ask("POST", NEWS, body, PLAIN)).status == 200


# Replay.


async def test_sse_case_32_a_replay_far_larger_than_any_write_completes() -> None:
    """Twenty megabytes in five thousand events, and live ones behind them, to a reader with a small window."""
    async with serving(memory(ring_messages=6000, ring_bytes=64 << 20)) as served:
        keeps = await Sse.open(served.port, f"{NEWS}/events", receive_buffer=4096)
        start = keeps.last_id
        bodies = [b"%d " % number + b"r" * 4000 for number in range(5000)]
        await fill(served.port, bodies)
        headers = {"Last-Event-ID": start}
        async with await Sse.open(served.port, f"{NEWS}/events", headers, receive_buffer=65536) as stream:
            first = await stream.take(100)
            await fill(served.port, [b"live"])
            events = first + await stream.take(4901)
        assert {event.name for event in events} == {"message"}
        assert [event.data.encode() for event in events] == [*bodies, b"live"]
        numbers = [int(event.id.rpartition(".")[2]) for event in events]
        assert numbers == list(range(1, 5002))


@pytest.mark.parametrize(
    ("ring", "kept"),
    [({"ring_messages": 50, "ring_bytes": 8 << 20}, 50), ({"ring_messages": 1000, "ring_bytes": 100_000}, None)],
    ids=["count", "bytes"],
)
async def test_sse_case_33_replay_is_capped_by_count_and_bytes_and_says_what_is_missing(
    ring: dict[str, int], kept: int | None
) -> None:
    async with serving(memory(**ring)) as served, await Sse.open(served.port, f"{NEWS}/events") as stream:
        start = stream.last_id
        bodies = [b"%d " % number + b"r" * 4000 for number in range(200)]
        await fill(served.port, bodies)
        async with await Sse.open(served.port, f"{NEWS}/events", {"Last-Event-ID": start}) as late:
            gap = await late.next()
            replay = await late.until(lambda event: event.data.startswith("199 "))
        assert (gap.name, gap.json["reason"]) == ("gap", "expired")
        # What is replayed and what is missing are everything, to the event.
        assert gap.json["missed"] + len(replay) == 200
        assert [event.data.encode() for event in replay] == bodies[gap.json["missed"] :]
        assert sum(len(event.data) for event in replay) <= ring["ring_bytes"]
        if kept is not None:
            assert len(replay) == kept
        else:
            # The bytes of a body and of what is encoded of it, and what an entry costs besides.
            assert ring["ring_bytes"] // (2 * 4600) - 1 <= len(replay) <= ring["ring_bytes"] // 4000


async def test_sse_case_29_earliest_replays_all_that_is_kept_and_nothing_else_is_a_start() -> None:
    async with serving(memory(ring_messages=100)) as served, await Sse.open(served.port, f"{NEWS}/events"):
        await fill(served.port, [b"%d" % number for number in range(250)])
        async with await Sse.open(served.port, f"{NEWS}/events?from=earliest") as stream:
            assert [event.data for event in await stream.take(100)] == [str(number) for number in range(150, 250)]
        # The word is no position: it is a foreign one.
        async with await Sse.open(served.port, f"{NEWS}/events", {"Last-Event-ID": "earliest"}) as stream:
            gap, first = await stream.take(2)
            assert (gap.json["reason"], first.data) == ("restart", "150")
        for wrong in ("from=first", "from=", "from=Earliest", "from=now&from=earliest", "earliest=true"):
            answer = await ask(served.port, "GET", f"{NEWS}/events?{wrong}")
            assert (answer.status, answer.code) == (400, "invalid_parameter"), wrong


async def test_sse_case_30_a_position_ahead_of_the_stream_is_a_gap_and_then_live() -> None:
    async with serving(memory()) as served, await Sse.open(served.port, f"{NEWS}/events") as stream:
        await fill(served.port, [b"0"])
        epoch, number = (await stream.next()).id.split(".")
        for ahead in (int(number) + 1, 10**14, 10**15 - 1):
            headers = {"Last-Event-ID": f"{epoch}.{ahead}"}
            async with await Sse.open(served.port, f"{NEWS}/events", headers) as late:
                gap, kept = await late.take(2)
                assert (gap.name, gap.json["reason"], gap.id, kept.data) == ("gap", "restart", f"{epoch}.0", "0")
                assert (await post(served.port, f"{NEWS}", b"live", PLAIN)).status == 200
                assert (await late.until(lambda event: event.data == "live"))[-1].id.startswith(epoch)


# Heartbeats.


async def test_sse_case_22_a_comment_comes_in_time_on_a_silent_stream_and_events_put_it_off() -> None:
    assert ServerSettings().heartbeat == 15
    heartbeat = 0.6
    async with serving(memory(), heartbeat=heartbeat) as served:
        stream = await RecordedSse.open(served.port, f"{NEWS}/events")
        opened, begun = len(stream.raw), time.monotonic()
        moments = [begun]
        while len(moments) < 4:
            await stream._more()
            moments.append(time.monotonic())
        assert stream.raw[opened:] == b": \n\n" * 3
        for earlier, later in itertools.pairwise(moments):
            assert 0.8 * heartbeat - 0.05 <= later - earlier <= heartbeat + 0.2
        # Longer than three of them, and never silent for the shortest of them.
        seen = len(stream.raw)
        for number in range(40):
            assert (await post(served.port, NEWS, b"%d" % number, PLAIN)).status == 200
            assert (await stream.next()).data == str(number)
            await asyncio.sleep(0.05)
        assert time.monotonic() - begun > 3 * heartbeat
        assert b"\n: " not in stream.raw[seen:]


async def test_sse_case_15_a_comment_fires_nothing_and_leaves_the_position() -> None:
    async with serving(memory(), heartbeat=0.05) as served:
        stream = await RecordedSse.open(served.port, f"{NEWS}/events")
        await fill(served.port, [b"x"])
        event = await stream.next()
        with pytest.raises(TimeoutError):
            await stream.next(0.4)
        assert stream.raw.count(b"\n\n: \n\n") >= 3
        assert stream.last_id == event.id
        async with await Sse.open(served.port, f"{NEWS}/events", {"Last-Event-ID": stream.last_id}) as resumed:
            await fill(served.port, [b"y"])
            assert (await resumed.next()).data == "y"


@pytest.mark.parametrize("value", ["0", "0.0", "-1", ".nan", ".inf", "null", "''"])
async def test_sse_case_46_no_configuration_floods_with_heartbeats(tmp_path: Path, value: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(f"server: {{heartbeat: {value}}}\nservices: {{mem: {{mq_type: Memory}}}}\n")
    command = (sys.executable, "-m", "app", "check", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=PIPE, stderr=STDOUT, env=child_environment(tmp_path)
    )
    output, _ = await process.communicate()
    assert process.returncode == 1, output
    assert b"heartbeat" in output


# The end.


async def test_sse_case_12_sse_case_39_a_stream_ends_behind_a_whole_event_and_says_retry(tmp_path: Path) -> None:
    """Ended in the middle of a flood of large events, for readers at different places."""
    config = write_config(tmp_path, memory(ring_messages=4000), server={"drain_seconds": 5})
    async with running(config) as gateway:
        streams = [await RecordedSse.open(gateway.port, f"{NEWS}/events", receive_buffer=65536) for _ in range(5)]
        rests = [asyncio.create_task(stream.rest()) for stream in streams]

        async def flood() -> int:
            sent = 0
            async with await Http.connect(gateway.port) as http:
                while (await http.ask("POST", NEWS, b"%d " % sent + b"f" * 20_000, PLAIN)).status == 200:
                    sent += 1
            return sent

        flooding = asyncio.create_task(flood())

        async def flows() -> bool:
            return all(len(stream.raw) > 1_000_000 for stream in streams)

        await eventually(flows, "a megabyte on every stream")
        gateway.signal(signal.SIGTERM)
        for stream, rest in zip(streams, rests, strict=True):
            events = await rest  # a clean last chunk, else this raises
            assert stream.raw.endswith(b"\n\n")
            assert re.fullmatch(rb"retry: [1-5][0-9]{3}", stream.blocks[-2])
            # Every event that was begun is whole, and none is missing before the last.
            assert [event.data for event in events] == [f"{number} " + "f" * 20_000 for number in range(len(events))]
            assert stream.raw.count(b"\ndata: ") == len(events)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert await gateway.ended(10) == 0


# Who may open one.


@pytest.mark.parametrize("path", [NEWS, JOBS])
async def test_sse_case_54_a_listed_origin_is_named_and_no_other(path: str) -> None:
    async with serving(memory(), allowed_origins=[ORIGIN]) as served:
        async with await Sse.open(served.port, f"{path}/events", {"Origin": ORIGIN}) as stream:
            assert stream.headers["access-control-allow-origin"] == ORIGIN
            assert stream.headers["access-control-allow-credentials"] == "true"
            assert stream.headers["vary"] == "Origin"
        for origin in (STRANGER, f"{ORIGIN}.evil.example", "null", "http://dash.example:81", "https://dash.example"):
            async with await Http.connect(served.port) as http:
                answer = await http.ask("HEAD", f"{path}/events", None, {"Origin": origin, "Connection": "close"})
            assert answer.headers["vary"] == "Origin"
            assert not [name for name in answer.headers if name.startswith("access-control-")], origin


async def test_sse_case_55_a_preflight_allows_what_a_client_with_fetch_needs() -> None:
    asked = "authorization,cache-control,last-event-id"
    async with serving(memory(), allowed_origins=[ORIGIN]) as served, await Http.connect(served.port) as http:
        for path in (f"{NEWS}/events", f"{JOBS}/events", NEWS):
            headers = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": asked}
            answer = await http.ask("OPTIONS", path, None, {"Origin": ORIGIN, **headers})
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "GET" in answer.headers["access-control-allow-methods"]
            allowed = answer.headers["access-control-allow-headers"].split(", ")
            assert sorted(allowed) == asked.split(",")
            refused = await http.ask("OPTIONS", path, None, {"Origin": STRANGER, **headers})
            assert refused.status == 403
            assert "access-control-allow-origin" not in refused.headers


async def test_sse_case_56_no_secret_is_taken_from_a_query_and_none_is_logged(tmp_path: Path) -> None:
    async with running(write_config(tmp_path, memory())) as gateway:
        for name in ("access_token", "token", "key", "authorization"):
            answer = await ask(gateway.port, "GET", f"{NEWS}/events?{name}=s3cr3t-{name}")
            assert (answer.status, answer.code) == (400, "invalid_parameter")
            assert b"s3cr3t" not in answer.body

        async def logged() -> bool:
            return gateway.log.read_bytes().count(b"path=/mq/mem/Topics/news/events status=400") == 4

        await eventually(logged, "a line for each request")
        # A ticket is looked at where anybody is asked who they are; it is written down nowhere.
        assert (await ask(gateway.port, "HEAD", f"{NEWS}/events?ticket=s3cr3t")).status == 200
        assert b"s3cr3t" not in gateway.log.read_bytes()


async def test_sse_case_38_sse_case_57_what_is_forbidden_is_plain_also_for_an_event_source() -> None:
    """A page from elsewhere may neither publish nor take from a Queue, and is told so with a status that ends it."""
    foreign: list[dict[str, str]] = [{"Origin": STRANGER}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
    async with serving(memory(), allowed_origins=[ORIGIN]) as served, await Http.connect(served.port) as http:
        for headers in foreign:
            for path in (JOBS, NEWS):
                answer = await http.ask("POST", path, b"x", headers)
                assert (answer.status, answer.code, answer.outcome) == (403, "forbidden", "not_sent")
            taken = await http.ask("GET", f"{JOBS}/events", None, {**headers, "Accept": "text/event-stream"})
            assert (taken.status, taken.code) == (403, "forbidden")
            assert taken.headers["content-type"] == "application/problem+json"
        assert (await http.ask("POST", JOBS, b"mine", {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"})).status == 200
        async with await Sse.open(served.port, f"{JOBS}/events") as stream:
            assert (await stream.next()).data == "mine"


async def test_sse_case_36_nothing_but_200_is_a_stream_and_what_is_not_there_is_404() -> None:
    services = {"mem": {"mq_type": "Memory", "topics": {"news": {}}}}
    async with serving(services) as served, await Http.connect(served.port) as http:
        for path in ("/mq/mem/Topics/gone/events", "/mq/gone/Topics/news/events", "/mq/mem/Queues/news/events"):
            answer = await http.ask("GET", path, None, {"Accept": "text/event-stream"})
            assert answer.status == 404
            assert answer.headers["content-type"] == "application/problem+json"


async def test_sse_case_44_all_places_are_taken_and_it_is_counted() -> None:
    async with serving(memory(), limits={"streams": 3}) as served:
        streams = [await Sse.open(served.port, f"{path}/events") for path in (NEWS, NEWS, JOBS)]
        for path in (NEWS, JOBS):
            answer = await ask(served.port, "GET", f"{path}/events")
            assert (answer.status, answer.code) == (429, "too_many_streams")
            assert int(answer.headers["retry-after"]) >= 1
        assert served.metric("mq_gateway_streams_refused_total", reason="too_many_streams") == 2
        assert served.metric("mq_gateway_streams", service="mem", type="Topics") == 2
        streams[0].reset()

        async def free() -> bool:
            return served.metric("mq_gateway_streams", service="mem", type="Topics") == 1

        await eventually(free, "a free place")
        await Sse.open(served.port, f"{NEWS}/events")
