"""An issuer that publishes its keys badly, not at all or others than before, and clients who make keys up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.callers import bearer
from tests.e2e.crowd import each
from tests.e2e.http_client import Http, Sse, ask, eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, write_config
from tests.e2e.vitals import Times, repeating, vitals
from tests.unit.auth.jwks_publisher import Answer, flooding, published, publishing, response, saying
from tests.unit.auth.jwt_issuer import AUDIENCE, ISSUER, Issuer, claims, document, ed_key

OLD = Issuer("EdDSA", ed_key("old"), "old")
NEW = Issuer("EdDSA", ed_key("new"), "new")
FORGER = Issuer("EdDSA", ed_key("forger"), "forged")
QUEUE, TOPIC = "/mq/mem/Queues/jobs", "/mq/mem/Topics/news"
FORGED = 2000
#: Seconds for a fetch (`app.auth.jwks_fetch`), and what a busy machine adds.
FETCH_SECONDS, SLACK = 5.0, 2.0


def token(issuer: Issuer, **header: Any) -> str:
    return issuer.token(claims(exp=time.time() + 600), **header)


@asynccontextmanager
async def believing(folder: Path, url: str) -> AsyncIterator[LiveGateway]:
    """A gateway that takes the JWTs of whoever publishes keys there, for everything."""
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["EdDSA"], "jwks_url": url, "jwks_refresh": 1}
    allow = ["publish", "subscribe", "take", "look"]
    auth = {"mode": "jwt", "jwt": jwt, "policy": [{"principals": ["alice"], "allow": allow, "uris": ["*"]}]}
    async with running(write_config(folder, {"mem": MEMORY}, auth=auth)) as gateway:
        yield gateway
        assert "hush" not in gateway.log.read_text()


async def status_of(gateway: LiveGateway, text: str) -> int:
    return (await post(gateway.port, QUEUE, b"x", bearer(text))).status


@asynccontextmanager
async def lively(gateway: LiveGateway, *good: str) -> AsyncIterator[None]:
    """The probe, and publishes with these tokens, are answered within a second all the while."""
    times = [(Times("probes"), partial(_probe, gateway))]
    times += [(Times("publishes"), partial(_publish, gateway, text)) for text in good]
    async with repeating(0.02, *times):
        yield
    for measured, _ in times:
        print(measured)
        assert measured.worst < 1


async def _probe(gateway: LiveGateway) -> None:
    assert (await ask(gateway.port, "GET", "/health/live")).status == 200


async def _publish(gateway: LiveGateway, text: str) -> None:
    assert await status_of(gateway, text) == 200


def stalling(text: bytes, over: asyncio.Event) -> Answer:
    """Say this, and nothing more until it is `over`."""

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await over.wait()

    return stall


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = document(OLD.jwk())
# How an issuer answers: with what, until it is `over`; the port is that of another server.
BAD: dict[str, Callable[[asyncio.Event, int], Answer]] = {
    "hangs before its head": lambda over, _: stalling(b"", over),
    "hangs in the body": lambda over, _: stalling(HEAD + GOOD[:50], over),
    "floods the head": lambda _over, _: flooding(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"y" * 8000 + b"\r\n"),
    "floods the body": lambda _over, _: flooding(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "drips chunks of one byte": lambda _over, _: flooding(CHUNKED, b"1\r\n \r\n"),
    "fails": lambda _over, _: saying(response(GOOD, "500 Internal Server Error")),
    "redirects to another server": lambda _over, port: saying(
        response(b"", "302 Found", location=f"http://127.0.0.1:{port}/keys")
    ),
    "sends a page": lambda _over, _: saying(response(b"<html>hush</html>")),
    "sends deep JSON": lambda _over, _: saying(response(b"[" * 100_000)),
    "sends half": lambda _over, _: saying(response(GOOD)[:-20]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_issuer_at_the_start(tmp_path: Path, bad: Callable[[asyncio.Event, int], Answer]) -> None:
    """The gateway serves at once, knows nobody in bounded time, and those it should as soon as it can."""
    over = asyncio.Event()
    async with (
        published(publishing(OLD.jwk())) as elsewhere,
        published(bad(over, elsewhere.port)) as issuer,
        believing(tmp_path, issuer.url) as gateway,
    ):
        before = vitals(gateway.pid).rss
        async with lively(gateway):
            begun = time.monotonic()
            for text in (token(OLD), token(FORGER)):
                asking = asyncio.create_task(status_of(gateway, text))
                await asyncio.wait({asking}, timeout=0.3)
                over.set()
                assert await asking == 503
            assert time.monotonic() - begun < 2 * (FETCH_SECONDS + SLACK)
            issuer.answer = publishing(OLD.jwk())
            await _until_known(gateway, OLD)
            assert await status_of(gateway, token(FORGER)) == 401
        assert vitals(gateway.pid).rss - before < 32
        assert elsewhere.requests == []


GONE_BAD = {name: BAD[name] for name in ("hangs before its head", "floods the body", "sends a page")}


@pytest.mark.parametrize("bad", GONE_BAD.values(), ids=GONE_BAD)
async def test_an_issuer_that_goes_bad_changes_nothing_for_whom_it_knew(
    tmp_path: Path, bad: Callable[[asyncio.Event, int], Answer]
) -> None:
    over = asyncio.Event()
    async with published(publishing(OLD.jwk())) as issuer, believing(tmp_path, issuer.url) as gateway:
        await _until_known(gateway, OLD)
        issuer.asked.clear()
        issuer.answer = bad(over, 1)
        async with asyncio.timeout(FETCH_SECONDS):
            await issuer.asked.wait()
        # One that was seen before, and one that was not.
        async with lively(gateway, token(OLD), token(OLD, typ="at+jwt")):
            await asyncio.sleep(0.3)
        over.set()


async def test_keys_are_rotated(tmp_path: Path) -> None:
    async with published(publishing(OLD.jwk())) as issuer, believing(tmp_path, issuer.url) as gateway:
        await _until_known(gateway, OLD)
        first = token(OLD)
        stream = await Sse.open(gateway.port, f"{TOPIC}/events", bearer(first))
        taking = asyncio.create_task(
            ask(gateway.port, "POST", "/mq/mem/Queues/none/receive?wait=20", b"", bearer(first))
        )
        issuer.answer = publishing(OLD.jwk(), NEW.jwk())
        await asyncio.sleep(1.1)  # the rest after a fetch, in which nobody makes it ask
        begun = time.monotonic()
        assert await status_of(gateway, token(NEW)) == 200, "at once: an unknown key is asked for"
        assert time.monotonic() - begun < SLACK
        assert await status_of(gateway, first) == 200
        assert (await post(gateway.port, TOPIC, b"both", bearer(token(NEW)))).status == 200
        assert (await stream.next()).data == "both"
        issuer.answer = publishing(NEW.jwk())
        begun = time.monotonic()
        await stream.rest(timeout=5.0)
        assert (await taking).status == 401
        assert time.monotonic() - begun < 5
        assert await status_of(gateway, first) == 401
        assert await status_of(gateway, token(NEW)) == 200
        # A key of the same name that is another one.
        issuer.answer = publishing(Issuer("EdDSA", ed_key("third"), "new").jwk())
        await _until(gateway, token(NEW), 401)


async def test_thousands_of_made_up_keys_cost_the_issuer_a_few_questions(tmp_path: Path) -> None:
    async with published(publishing(OLD.jwk())) as issuer, believing(tmp_path, issuer.url) as gateway:
        await _until_known(gateway, OLD)
        asked, begun, numbers = len(issuer.requests), time.monotonic(), count()
        statuses: set[int] = set()
        longest = 0.0

        async def forge(http: Http) -> None:
            nonlocal longest
            for number in numbers:
                if number >= FORGED:
                    return
                since = time.monotonic()
                shown = bearer(token(FORGER, kid=f"made up {number}"))
                statuses.add((await http.ask("POST", QUEUE, b"x", shown)).status)
                longest = max(longest, time.monotonic() - since)

        async with lively(gateway, token(OLD)):
            await each(forge, [await Http.connect(gateway.port) for _ in range(20)], 20)
            seconds = time.monotonic() - begun
        questions = len(issuer.requests) - asked
        print(f"{FORGED} forged tokens in {seconds:.1f} s: {questions} questions, longest {longest * 1000:.0f} ms")
        assert statuses == {401}
        assert longest < 1 + SLACK
        # One for each second, for that is how often it asks in any case, and no more often for them.
        assert questions <= 2 * seconds + 3
        assert await status_of(gateway, token(OLD)) == 200


async def test_made_up_keys_while_the_issuer_hangs(tmp_path: Path) -> None:
    """A hundred wait for it, as long as a fetch may take; more do not wait at all. Nobody else notices."""
    async with published(publishing(OLD.jwk())) as issuer, believing(tmp_path, issuer.url) as gateway:
        await _until_known(gateway, OLD)
        issuer.asked.clear()
        issuer.answer = stalling(b"", asyncio.Event())
        async with asyncio.timeout(FETCH_SECONDS):
            await issuer.asked.wait()
        begun, waited = time.monotonic(), []

        async def forge(number: int) -> None:
            assert await status_of(gateway, token(FORGER, kid=f"made up {number}")) == 401
            waited.append(time.monotonic() - begun)

        async with lively(gateway, token(OLD)):
            await each(forge, range(300), 300)
        assert max(waited) < FETCH_SECONDS + SLACK
        assert sorted(waited)[150] < 2, "most had no place to wait"
        issuer.answer = publishing(OLD.jwk(), NEW.jwk())
        await _until_known(gateway, NEW)


async def _until_known(gateway: LiveGateway, issuer: Issuer) -> None:
    await _until(gateway, token(issuer), 200)


async def _until(gateway: LiveGateway, text: str, status: int) -> None:
    async def is_so() -> bool:
        return await status_of(gateway, text) == status

    await eventually(is_so, f"{status} for a token", 3 * FETCH_SECONDS)
