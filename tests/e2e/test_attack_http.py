"""Attacks on how requests are framed: what one client sends is never taken for another one's request.

Each case puts a publish to the Queue `smuggled` where only a reader who is wrong about a length would find it. The
attacker's own token may not publish there, and the one in the hidden request may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.callers import Callers, bearer
from tests.e2e.crowd import Raw
from tests.e2e.http_client import ask, get_json, post
from tests.e2e.live_gateway import LiveGateway, write_config
from tests.e2e.vitals import MIB, vitals

PATIENCE = 5.0
HEAD_SECONDS = 1.0
IDLE_SECONDS = 1.5
BODY_CAP = 1 << 20


@dataclass
class Site:
    """A gateway with an owner of `smuggled`, and an attacker who may publish to `mine` only."""

    gateway: LiveGateway
    owner: str
    attacker: str

    @property
    def port(self) -> int:
        return self.gateway.port

    async def smuggled(self) -> int:
        view = await get_json(self.port, "/mq/demo/Queues/smuggled", bearer(self.owner))
        return int(view["published"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("attack")
    callers = Callers(folder)
    owner, attacker = callers.add("owner"), callers.add("attacker")
    policy = [
        {"principals": ["owner"], "allow": ["publish", "look"], "uris": ["demo::Queues::*"]},
        {"principals": ["attacker"], "allow": ["publish"], "uris": ["demo::Queues::mine"]},
    ]
    demo = {"mq_type": "Memory", "queues": {"smuggled": {}, "mine": {}}}
    server = {"header_timeout": HEAD_SECONDS, "idle_timeout": IDLE_SECONDS}
    config = write_config(
        folder, {"demo": demo}, auth=callers.auth(policy=policy), server=server, limits={"body_bytes": BODY_CAP}
    )
    gateway = LiveGateway(config)
    try:
        gateway.await_start()
        yield Site(gateway, owner, attacker)
        assert gateway.problems() == []
    finally:
        gateway.kill()


def filled(template: str, site: Site) -> bytes:
    """`{A}`: the attacker's head up to its framing; `{S}`: the hidden request, whole."""
    hidden = (
        "POST /mq/demo/Queues/smuggled HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {site.owner}\r\nContent-Length: 1\r\n\r\nx"
    )
    mine = f"POST /mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {site.attacker}\r\n"
    text = template.replace("{S}", hidden).replace("{L}", str(len(hidden))).replace("{X}", f"{len(hidden):x}")
    return text.replace("{A}", mine).encode("latin-1")


# Framings that two readers could see in two ways (RFC 9112 sections 6.3 and 11.2). Refused, all of them.
AMBIGUOUS = {
    "length and chunks": "{A}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}",
    "chunks and length": "{A}Transfer-Encoding: chunked\r\nContent-Length: {L}\r\n\r\n0\r\n\r\n{S}",
    "chunked with a letter before": "{A}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{S}",
    "chunked with a tab before": "{A}Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n{S}",
    "chunked twice": "{A}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{S}",
    "identity, then chunked": "{A}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{S}",
    "chunked, then gzip": "{A}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{S}",
    "a vertical tab in chunked": "{A}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{S}",
    "a space before the colon": "{A}Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}",
    "two lengths": "{A}Content-Length: 0\r\nContent-Length: {L}\r\n\r\n{S}",
    "two lengths in one": "{A}Content-Length: 0, {L}\r\n\r\n{S}",
    "a negative length": "{A}Content-Length: -1\r\n\r\n{S}",
    "a length with a plus": "{A}Content-Length: +0\r\n\r\n{S}",
    "a length in hexadecimal": "{A}Content-Length: 0x0\r\n\r\n{S}",
    "a length that is no number": "{A}Content-Length: zero\r\n\r\n{S}",
    "an empty length": "{A}Content-Length: \r\n\r\n{S}",
    "a length beyond 64 bits": "{A}Content-Length: 18446744073709551616\r\n\r\n{S}",
    "a length with digits of another script": "{A}Content-Length: \xb2\r\n\r\n{S}",
    "a folded line": "{A}X-A: b\r\n Content-Length: 0\r\nContent-Length: {L}\r\n\x20\r\n\r\n{S}",
    "a folded chunked": "{A}Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n{S}",
    "a NUL in a value": "{A}X-A: \0\r\nContent-Length: 0\r\n\r\n{S}",
    "a NUL in a name": "{A}X\0-A: b\r\nContent-Length: 0\r\n\r\n{S}",
    "a bare CR in a value": "{A}X-A: b\rContent-Length: 0\r\n\r\n{S}",
    "a name with a space": "{A}X A: b\r\nContent-Length: 0\r\n\r\n{S}",
    "a line without a colon": "{A}Content-Length\r\n\r\n{S}",
    "no host": "POST /mq/demo/Queues/mine HTTP/1.1\r\nContent-Length: 0\r\n\r\n{S}",
    "two hosts": "{A}Host: b\r\nContent-Length: 0\r\n\r\n{S}",
    "a host with a path": "POST /mq/demo/Queues/mine HTTP/1.1\r\nHost: a/b\r\nContent-Length: 0\r\n\r\n{S}",
    "a chunk size that overflows": "{A}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{S}",
    "a negative chunk": "{A}Transfer-Encoding: chunked\r\n\r\n-1\r\n{S}",
    "a chunk size with a plus": "{A}Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{S}",
    "a chunk size with 0x": "{A}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{S}",
    "a chunk longer than it says": "{A}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{S}",
    "a chunk without its end": "{A}Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n{S}",
    "HTTP/0.9": "GET /mq/demo/Queues/mine\r\n{S}",
    "HTTP/1.2": "POST /mq/demo/Queues/mine HTTP/1.2\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "HTTP/2 without asking": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{S}",
    "chunks in HTTP/1.0": (
        "POST /mq/demo/Queues/mine HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}"
    ),
    "a tunnel": "CONNECT smuggled:80 HTTP/1.1\r\nHost: smuggled:80\r\n\r\n{S}",
    "a fragment in the target": "POST /mq/demo/Queues/mine#x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a space in the target": "POST /mq/demo/Queues/mine x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a target of another scheme": "POST ftp://a/mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\n\r\n{S}",
    "a method with a colon": "POST: /mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "one length twice": "{A}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{S}",
    "a length with an underscore": "{A}Content-Length: 0_0\r\n\r\n{S}",
    "a length with a fraction": "{A}Content-Length: 0.0\r\n\r\n{S}",
    "a length with a space in it": "{A}Content-Length: 0 0\r\n\r\n{S}",
    "a length as a list of itself": "{A}Content-Length: 0,0\r\n\r\n{S}",
    "a space before the colon of the length": "{A}Content-Length : {L}\r\n\r\n{S}",
    "a tab before the name of the length": "{A}\tContent-Length: {L}\r\n\r\n{S}",
    "chunked in quotes": '{A}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n{S}',
    "chunked with a parameter": "{A}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n{S}",
    "chunked with a comma behind": "{A}Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n{S}",
    "chunked with a comma before": "{A}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n{S}",
    "chunked with a no-break space": "{A}Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n{S}",
    "chunked with a NUL": "{A}Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n{S}",
    "chunked in two words": "{A}Transfer-Encoding: chunk ed\r\n\r\n0\r\n\r\n{S}",
    "chunked, chunked": "{A}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{S}",
    "chunked in two lines": "{A}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}",
    "an empty encoding": "{A}Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n{S}",
    "an encoding that is said to be for the next hop": (
        "{A}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: {L}\r\n\r\n0\r\n\r\n{S}"
    ),
    "lines that end with LF only": "POST /mq/demo/Queues/mine HTTP/1.1\nHost: a\nContent-Length: 0\n\n{S}",
    "a line that ends with LF only": "{A}X-A: b\nContent-Length: 0\r\n\r\n{S}",
    "a head that ends with LF only": "{A}Content-Length: 0\r\n\n{S}",
    "lines that end with CR only": "POST /mq/demo/Queues/mine HTTP/1.1\rHost: a\rContent-Length: 0\r\r{S}\r\n\r\n",
    "a chunk size that ends with LF only": "{A}Transfer-Encoding: chunked\r\n\r\n0\n\n{S}",
    "a chunk that ends with LF only": "{A}Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n{S}",
    "a chunk size with a space before": "{A}Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n{S}",
    "a chunk size with an underscore": "{A}Transfer-Encoding: chunked\r\n\r\n0_0\r\n\r\n{S}",
    "an empty chunk size": "{A}Transfer-Encoding: chunked\r\n\r\n\r\n{S}",
    "a chunk extension with a LF": "{A}Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n{S}",
    "a folded trailer": "{A}Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n c\r\n\r\n{S}",
    "a trailer without a colon": "{A}Transfer-Encoding: chunked\r\n\r\n0\r\nX-A\r\n\r\n{S}",
    "a framing in trailers": (
        "{A}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n{S}"
    ),
    "a NUL in the target": "POST /mq/demo/Queues/mine\0 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a tab in the request line": "POST\t/mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a CR in the request line": "POST /mq/demo/Queues/mine\rHTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a version with two digits": "POST /mq/demo/Queues/mine HTTP/1.10\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a version in small letters": "POST /mq/demo/Queues/mine http/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n{S}",
    "a wish for h2c with two lengths": (
        "{A}Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"
    ),
}


@pytest.mark.parametrize("template", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_framing_that_is_ambiguous_is_refused(site: Site, template: str) -> None:
    before = await site.smuggled()
    answers = await spoken(site, filled(template, site))
    status, problem = answers.split(b" ", 2)[1], answers.partition(b"\r\n\r\n")[2]
    assert status in (b"400", b"405", b"431"), answers[:300]
    assert b"application/problem+json" in answers.partition(b"\r\n\r\n")[0]
    assert b"connection: close" in answers.lower()
    # The one answer, and nothing of what came behind it.
    assert problem.count(b"HTTP/1.1 ") == 0
    assert await site.smuggled() == before


# Framings that are clear: what is hidden belongs to the body, which the attacker may send to a Queue of its own.
INSIDE = {
    "within the length": "{A}Content-Length: {L}\r\n\r\n{S}",
    "within a chunk": "{A}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{S}\r\n0\r\n\r\n",
    "within a chunk with an extension": "{A}Transfer-Encoding: chunked\r\n\r\n{X};a=b\r\n{S}\r\n0\r\n\r\n",
    "within a chunk with zeros before": "{A}Transfer-Encoding: chunked\r\n\r\n000{X}\r\n{S}\r\n0\r\n\r\n",
    "behind a wish for h2c": "{A}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {L}\r\n\r\n{S}",
    "behind a wish for a WebSocket": "{A}Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {L}\r\n\r\n{S}",
    "behind 100-continue": "{A}Expect: 100-continue\r\nContent-Length: {L}\r\n\r\n{S}",
    "CHUNKED in capitals": "{A}Transfer-Encoding: CHUNKED\r\n\r\n{X}\r\n{S}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("template", INSIDE.values(), ids=INSIDE)
async def test_a_body_is_a_body(site: Site, template: str) -> None:
    before = await site.smuggled()
    answers = await spoken(
        site, filled(template, site) + filled("{A}Connection: close\r\nContent-Length: 1\r\n\r\nx", site)
    )
    statuses = [part.split(b" ", 2)[1] for part in answers.split(b"HTTP/1.1")[1:]]
    assert [status for status in (part[:3] for part in statuses) if status != b"100"] == [b"200", b"200"], answers
    assert await site.smuggled() == before


# Requests that are clear, and are not the attacker's to make: each is answered for itself.
BEHIND = {
    "behind a refused one": ("POST /mq/demo/Queues/nope HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"401"),
    "with a body on DELETE": (
        "DELETE /mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"401",
    ),
    "with a body on HEAD": ("HEAD /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"200"),
    "with zeros before its length": (
        "POST /mq/demo/Queues/nope HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
        b"401",
    ),
    "with a name that only looks like a length": (
        "POST /mq/demo/Queues/nope HTTP/1.1\r\nHost: a\r\nContent_Length: 999\r\nContent-Length: 0\r\n\r\n",
        b"401",
    ),
    "in trailers": ("{A}Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n", b"200"),
    "with a body on GET": ("GET /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"200"),
    "with another host in the target": (
        "POST http://evil.example/mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"401",
    ),
}


@pytest.mark.parametrize(("first", "status"), BEHIND.values(), ids=BEHIND)
async def test_credentials_are_of_one_request_only(site: Site, first: str, status: bytes) -> None:
    """What comes behind another request on the same connection shows none, and is nobody's."""
    before = await site.smuggled()
    second = "POST /mq/demo/Queues/smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
    answers = await spoken(site, filled(first + second, site))
    assert [part.split(b" ", 2)[1] for part in answers.split(b"HTTP/1.1")[1:]] == [status, b"401"], answers
    assert await site.smuggled() == before


async def spoken(site: Site, data: bytes) -> bytes:
    """All that is answered until the server ends the connection."""
    raw = await Raw.connect(site.port)
    try:
        async with asyncio.timeout(PATIENCE):
            await raw.send(data)
            return await raw.rest()
    finally:
        raw.close()


@asynccontextmanager
async def nobody_waits(site: Site) -> AsyncIterator[None]:
    """Another caller's publishes are answered within a second all the while."""
    over = asyncio.Event()

    async def publish() -> float:
        worst = 0.0
        while not over.is_set():
            begun = time.perf_counter()
            answer = await post(site.port, "/mq/demo/Queues/mine", b"x", bearer(site.owner))
            assert answer.status == 200, answer
            worst = max(worst, time.perf_counter() - begun)
            await asyncio.sleep(0.02)
        return worst

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        over.set()
        worst = await publishing
    assert worst < 1.0


async def test_50_000_headers(site: Site) -> None:
    head = filled("{A}", site) + b"".join(b"X-%d: y\r\n" % number for number in range(50_000))
    async with nobody_waits(site):
        answer = await refusal(site, head + b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 "), answer


async def test_one_header_of_ten_megabytes(site: Site) -> None:
    async with nobody_waits(site):
        answer = await refusal(site, filled("{A}X-A: ", site) + b"y" * (10 << 20) + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 "), answer


async def refusal(site: Site, data: bytes) -> bytes:
    """The answer to what is more than the server reads; it may reset the connection while more comes."""
    raw = await Raw.connect(site.port)
    try:
        async with asyncio.timeout(PATIENCE):
            sending = asyncio.ensure_future(raw.send(data))
            try:
                return await raw.rest()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    finally:
        raw.close()


async def test_a_body_of_a_gigabyte_is_refused_before_it_is_read(site: Site) -> None:
    answer = await refusal(site, filled("{A}Content-Length: 1073741824\r\n\r\n", site))
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    expecting = filled("{A}Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n", site)
    answer = await refusal(site, expecting)
    assert answer.startswith(b"HTTP/1.1 413 "), answer


async def test_a_gigabyte_in_chunks_is_cut_at_the_cap(site: Site) -> None:
    before = vitals(site.gateway.pid).rss
    raw = await Raw.connect(site.port)
    sent = 0
    async with nobody_waits(site):
        try:
            await raw.send(filled("{A}Transfer-Encoding: chunked\r\n\r\n", site))
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            async with asyncio.timeout(PATIENCE):
                while sent < 1 << 30:
                    await raw.send(chunk)
                    sent += len(chunk)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            raw.close()
    assert sent < 64 * MIB, "it was read on and on"
    assert vitals(site.gateway.pid).rss - before < 48


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "x-unheard-of"])
async def test_nothing_is_decompressed(site: Site, encoding: str) -> None:
    headers = {**bearer(site.attacker), "Content-Encoding": encoding}
    answer = await ask(site.port, "POST", "/mq/demo/Queues/mine", b"\x1f\x8b" + b"\0" * 100, headers)
    assert (answer.status, answer.code) == (415, "unsupported_encoding")


SLOW = {
    "a head that drips": (b"POST /mq/demo/Queues/mine HTTP/1.1\r\nHost: a\r\nX-A: ", b"y", HEAD_SECONDS),
    "a request line that drips": (b"POST /", b"a", HEAD_SECONDS),
    "empty lines before a request": (b"\r\n", b"\r\n", HEAD_SECONDS),
}


@pytest.mark.parametrize(("begin", "drip", "seconds"), SLOW.values(), ids=SLOW)
async def test_slowloris(site: Site, begin: bytes, drip: bytes, seconds: float) -> None:
    """A hundred of them; each is gone when its time is over, however lively it drips."""

    async def one() -> float:
        raw = await Raw.connect(site.port)
        begun = time.perf_counter()

        async def dripping() -> None:
            await raw.send(begin)
            while True:
                await asyncio.sleep(0.1)
                await raw.send(drip)

        task = asyncio.create_task(dripping())
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                await raw.rest()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raw.close()
        return time.perf_counter() - begun

    async with nobody_waits(site):
        lasted = await asyncio.gather(*(one() for _ in range(100)))
    assert max(lasted) < seconds + 3.0, "the server ended it, not the test"


async def test_a_body_that_never_comes(site: Site) -> None:
    begun = time.perf_counter()
    async with nobody_waits(site):
        answer = await refusal(site, filled("{A}Content-Length: 100\r\n\r\n", site))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"outcome":"not_sent"' in answer
    assert time.perf_counter() - begun < IDLE_SECONDS + 3


async def test_a_connection_that_says_nothing_more(site: Site) -> None:
    raw = await Raw.connect(site.port)
    await raw.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(IDLE_SECONDS + PATIENCE):
        assert (await raw.rest()).startswith(b"HTTP/1.1 200 ")
    raw.close()
