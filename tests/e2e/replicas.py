"""Replicas of the gateway in the test's own loop, each with queues in memory, and strangers where a peer should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.config.settings import Settings
from tests.brokers.tls import Authority
from tests.e2e.http_gateway import DEMO, Served, serving

JOBS = "/mq/demo/Queues/jobs"
SECRET = b"between replicas, and nobody else"


def secret_file(folder: Path, secret: bytes = SECRET) -> str:
    path = folder / f"secret-{hash(secret)}"
    path.write_bytes(secret + b"\n")
    return str(path)


async def tell(replica: Served, secret: str, *peers: str) -> None:
    """Other peers, as a reload takes them over."""
    values = {"server": {"peers": list(peers)}, "services": {"demo": DEMO}, "auth": {"secret_file": secret}}
    await replica.gateway.reload(Settings.model_validate(values))


@contextlib.asynccontextmanager
async def replicas(
    folder: Path, number: int = 2, *, authority: Authority | None = None, **limits: Any
) -> AsyncIterator[Sequence[Served]]:
    """So many that know each other, and themselves; with an `authority` they speak HTTPS."""
    secret = secret_file(folder)
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(serving(auth={"secret_file": secret}, limits=limits, authority=authority))
            for _ in range(number)
        ]
        for one in made:
            await tell(one, secret, *(f"127.0.0.1:{each.port}" for each in made))
        yield made


# A worker.


async def take(replica: Served, number: int = 1, path: str = JOBS, **query: Any) -> list[str]:
    """Leases of so many messages that are there now."""
    if number < 10:
        for at in range(number):
            assert (await replica.client.post(path, content=b"%d" % at)).status_code == 200
    else:
        lines = b"".join(b"%d\n" % at for at in range(number))
        batch = await replica.client.post(
            f"{path}/batch", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        assert batch.status_code == 200
    leases: list[str] = []
    while len(leases) < number:  # an answer is given soon, and not always with all
        asked = {"max": number - len(leases), "wait": 5, **query}
        response = await replica.client.post(f"{path}/receive", params=asked)
        leases += [one["lease"] for one in response.json()["messages"]]
    return leases


async def say(replica: Served, verb: str, *leases: str, path: str = JOBS, **members: Any) -> httpx.Response:
    return await replica.client.post(f"{path}/{verb}", json={"leases": leases, **members})


def results(response: httpx.Response) -> list[str]:
    return [one["result"] for one in response.json()["results"]]


# Strangers.

Handle = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One connection to a stranger, after its first request was read."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()


@dataclass
class Stranger:
    """Listens, and does with each request what it was made for."""

    handle: Handle
    port: int = 0
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            visit = Visit(head, await reader.readexactly(length), reader, writer)
            self.visits.append(visit)
            await self.handle(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            writer.close()


@contextlib.asynccontextmanager
async def stranger(handle: Handle) -> AsyncIterator[Stranger]:
    made = Stranger(handle)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    """An answer as text on the wire."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body
