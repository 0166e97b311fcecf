"""A program for a network namespace of its own: an event stream whose client is suddenly unreachable.

The client has a loopback address to itself, and a blackhole route swallows every packet to it from then on:
neither FIN nor RST comes, as when a laptop leaves its Wi-Fi. Prints one JSON object of what was seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from app.http1 import sockets
from tests.e2e.http_gateway import Events, Served, serving, until

CLIENT = "127.9.9.9"
#: Seconds of TCP_USER_TIMEOUT instead of thirty, of the heartbeat, and between two events.
USER_TIMEOUT, HEARTBEAT, PACE = 1.5, 0.5, 0.1
#: The write timeout is not to be what ends it.
SERVER: dict[str, Any] = {"heartbeat": HEARTBEAT, "write_timeout": 60.0}
TOPIC = "/mq/demo/Topics/events"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def unreachable(served: Served) -> asyncio.StreamWriter:
    """A stream that was open and read, and whose client is now out of reach."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=(CLIENT, 0))
    writer.write(b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % TOPIC.encode())
    await reader.readuntil(b": welcome\n\n")
    await until(lambda: streams(served) == 2)
    ip("route", "add", "blackhole", f"{CLIENT}/32", "table", "local")
    return writer


def streams(served: Served) -> float:
    return served.metric("mq_gateway_streams", service="demo", type="Topics")


async def publish(served: Served, watcher: Events, seen: list[str]) -> None:
    """Events all the while, which the other reader has to get as if nothing were the matter."""
    while True:
        await served.client.post(TOPIC, content=b"%d" % len(seen))
        seen.append((await watcher.message()).data or "")
        await asyncio.sleep(PACE)


async def run(busy: bool) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    async with serving(**SERVER) as served, served.stream(f"{TOPIC}/events") as watcher:
        await watcher.next()
        await served.client.get("/health/live")  # the client's own connections are there
        before = descriptors()
        writer = await unreachable(served)
        begun = loop.time()
        seen: list[str] = []
        publishing = asyncio.ensure_future(publish(served, watcher, seen)) if busy else None
        await until(lambda: streams(served) == 1)
        await until(lambda: descriptors() <= before + 1)  # the client's own end is the one more
        seconds = loop.time() - begun
        if publishing is not None:
            publishing.cancel()
        ip("route", "del", "blackhole", f"{CLIENT}/32", "table", "local")
        writer.transport.abort()
        closed = served.metric("mq_gateway_streams_closed_total", reason="client")
        readers = (await served.client.get(TOPIC)).json()["readers"]
        return {"seconds": seconds, "closed": closed, "readers": readers, "seen": seen}


if __name__ == "__main__":
    sockets.USER_TIMEOUT = int(USER_TIMEOUT * 1000)
    ip("link", "set", "lo", "up")
    print(json.dumps(asyncio.run(run(sys.argv[1] == "busy"))))
