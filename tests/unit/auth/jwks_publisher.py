"""A server that publishes keys, or does what one should not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from app.auth.jwks import JwksUrl, Outcome
from app.auth.jwt import JwtVerifier
from app.config.jwt import JwtSettings
from tests.unit.auth.jwt_issuer import AUDIENCE, ISSUER, Clock, document

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
#: Seconds any of what is awaited here takes at most, on a busy machine.
SOON = 10.0


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    made = {"content-length": str(len(body)), "connection": "close", **more}
    lines = [f"{name}: {value}" for name, value in made.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


def saying(text: bytes) -> Answer:
    """Say this and close."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return say


def publishing(*keys: Mapping[str, Any]) -> Answer:
    return saying(response(document(*keys)))


def hanging(text: bytes = b"") -> Answer:
    """Say this, and nothing more until the other side goes."""

    async def hang(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await asyncio.Event().wait()

    return hang


def flooding(head: bytes, piece: bytes) -> Answer:
    """Say this over and over."""

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()

    return flood


class Publisher:
    """Answers each request with what `answer` is at that time. Knows the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys?token=hush"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side has had enough."""
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            self.asked.set()
            async with asyncio.TaskGroup() as both:
                answering = both.create_task(self._answer(writer))
                leaving = both.create_task(reader.read())
                await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
                answering.cancel()
                leaving.cancel()
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ExceptionGroup, OSError):
            pass  # the other side is gone, or the test is over
        finally:
            writer.close()
            self.gone.set()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self.answer(writer)


@asynccontextmanager
async def published(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Publisher]:
    publisher = Publisher(answer)
    server = await asyncio.start_server(publisher.serve, "127.0.0.1", 0, ssl=tls)
    publisher.port = server.sockets[0].getsockname()[1]
    try:
        yield publisher
    finally:
        server.close()


class Fetching:
    """Keys from a URL that are being fetched, and whoever verifies tokens with them; fetches rest for no real time."""

    def __init__(self, url: str, **more: Any) -> None:
        names = ("jwks_refresh", "jwks_max_age")
        changes = {name: more.pop(name) for name in names if name in more}
        made = {"issuer": ISSUER, "audience": [AUDIENCE], "algorithms": ["EdDSA"], "jwks_url": url, **changes}
        settings = JwtSettings(**made)
        timing = {"seconds": 5.0, "first_rest": 0.01, "longest_rest": 0.05, **more}
        self.clock = Clock(0.0)
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.keys = JwksUrl(url, settings, count=self.outcomes.put_nowait, clock=self.clock, **timing)
        self.verifier = JwtVerifier(settings, self.keys, clock=Clock())

    def rested(self) -> None:
        """The longest rest is over."""
        self.clock.now += 60

    async def outcome(self) -> str:
        """What becomes of the next fetch."""
        async with asyncio.timeout(SOON):
            return (await self.outcomes.get()).value

    async def ends_with(self, wanted: str) -> None:
        """Wait for a fetch with this outcome."""
        while await self.outcome() != wanted:
            pass

    def kids(self) -> list[str | None]:
        return [key.kid for key in self.keys.current().keys]


@asynccontextmanager
async def fetching(url: str, **more: Any) -> AsyncIterator[Fetching]:
    made = Fetching(url, **more)
    task = asyncio.create_task(made.keys.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def never_blocked(most: float = 0.5) -> AsyncIterator[None]:
    """Fails where the loop does not come round for longer than this (seconds)."""
    loop = asyncio.get_running_loop()
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            worst = max(worst, loop.time() - before)

    task = asyncio.create_task(tick())
    try:
        await asyncio.sleep(0)
        yield
        await asyncio.sleep(0.01)
    finally:
        task.cancel()
    assert worst < most
