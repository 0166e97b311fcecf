"""Event streams through a real nginx: with its defaults, with compression, with a short patience, with HTTP/2."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.brokers.tls import Authority
from tests.e2e.chromium import Chromium, chromium
from tests.e2e.http_client import Http, RecordedSse, Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, write_config
from tests.e2e.nginx import Nginx

__all__ = ["chromium"]

NEWS = "/mq/mem/Topics/news"
PLAIN = {"Content-Type": "text/plain"}
HEARTBEAT = 0.5
SERVERS = {
    # As a distribution leaves it: HTTP/1.0 to the gateway, and everything buffered.
    "plain": "",
    "http11": 'proxy_http_version 1.1; proxy_set_header Connection "";',
    "gzip": "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0; gzip_http_version 1.0;",
    # The heartbeat is a quarter of it, as 15 s are of nginx's and of most balancers' 60.
    "impatient": "proxy_read_timeout 2s;",
    "h2": 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;',
}


@dataclass(frozen=True)
class Fronted:
    gateway: LiveGateway
    nginx: Nginx


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("nginx")
    gateway = LiveGateway(write_config(folder, {"mem": MEMORY}, server={"heartbeat": HEARTBEAT}))
    try:
        gateway.await_start()
        with Nginx(folder, gateway.port, SERVERS, authority.server()).running() as nginx:
            yield Fronted(gateway, nginx)
        assert gateway.problems() == []
    finally:
        gateway.kill()


@pytest.mark.parametrize("server", ["plain", "http11"])
async def test_sse_case_23_sse_case_25_events_are_immediate_through_nginx_as_it_comes(
    fronted: Fronted, server: str
) -> None:
    port = fronted.nginx.port[server]
    async with await Sse.open(port, f"{NEWS}/events") as stream, await Http.connect(fronted.gateway.port) as http:
        assert stream.headers["server"].startswith("nginx")
        seconds = []
        for number in range(20):
            begun = time.monotonic()
            assert (await http.ask("POST", NEWS, b"%d" % number, PLAIN)).status == 200
            # Nothing follows until this one is here.
            assert (await stream.next()).data == str(number)
            seconds.append(time.monotonic() - begun)
        assert statistics.median(seconds) < 0.05
    await _left(fronted)


async def test_sse_case_19_events_are_immediate_through_compression_that_nginx_is_told_to_do(fronted: Fronted) -> None:
    """nginx compresses in spite of `no-transform` where its configuration says so, and flushes every event."""
    request = f"GET {NEWS}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n"
    async with await Http.connect(fronted.nginx.port["gzip"]) as http:
        http.writer.write(request.encode())
        head = await http.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head
        assert b"Transfer-Encoding: chunked" in head
        unzip, shown = zlib.decompressobj(zlib.MAX_WBITS | 16), b""
        while b": welcome" not in shown:
            shown += unzip.decompress(await _chunk(http))
        for number in range(10):
            assert (await post(fronted.gateway.port, NEWS, b"gzip %d" % number, PLAIN)).status == 200
            async with asyncio.timeout(1):
                while not shown.endswith(b"data: gzip %d\n\n" % number):
                    shown += unzip.decompress(await _chunk(http))
    await _left(fronted)


async def _chunk(http: Http) -> bytes:
    size = int(await http.reader.readuntil(b"\r\n"), 16)
    return (await http.reader.readexactly(size + 2))[:-2]


async def test_sse_case_22_comments_keep_an_idle_stream_through_a_proxys_read_timeout(fronted: Fronted) -> None:
    async with await RecordedSse.open(fronted.nginx.port["impatient"], f"{NEWS}/events") as stream:
        with pytest.raises(TimeoutError):
            await stream.next(3)
        assert stream.raw.count(b": \n\n") >= 3 / HEARTBEAT - 1
        assert (await post(fronted.gateway.port, NEWS, "still here")).status == 200
        assert (await stream.next()).data == "still here"
    await _left(fronted)


async def _left(fronted: Fronted) -> None:
    """The end of a client behind a proxy reaches the gateway."""

    async def nobody() -> bool:
        return await fronted.gateway.metric("mq_gateway_streams", service="mem", type="Topics") == 0

    await eventually(nobody, "the end of the stream")


@pytest.mark.browser
async def test_sse_case_65_many_streams_of_a_page_do_not_starve_its_posts_over_http2(
    fronted: Fronted, chromium: Chromium
) -> None:
    """Eight, where HTTP/1.1 would leave a page six connections for everything."""
    base = f"https://127.0.0.1:{fronted.nginx.port['h2']}"
    async with chromium.page("about:blank") as page:
        await page.call("Security.setIgnoreCertificateErrors", ignore=True)
        await page.load(f"{base}/health/live")
        await page.run(OPEN_EIGHT)
        assert await page.run("Promise.all(sources.map((source) => source.opened)).then((all) => all.length)") == 8
        publish = json.dumps(f"{base}{NEWS}")
        assert await page.run(f"fetch({publish}, {{method: 'POST', body: 'for all'}}).then((a) => a.status)") == 200
        assert await page.run("Promise.all(sources.map((source) => source.first))") == ["for all"] * 8
        assert await page.run("performance.getEntriesByType('resource').at(-1).nextHopProtocol") == "h2"


OPEN_EIGHT = f"""
window.sources = Array.from({{length: 8}}, () => {{
  const source = new EventSource("{NEWS}/events");
  source.opened = new Promise((resolve) => {{ source.onopen = resolve; }});
  source.first = new Promise((resolve) => {{ source.onmessage = (event) => resolve(event.data); }});
  return source;
}}), sources.length
"""
