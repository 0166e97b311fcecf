"""A real browser whose user is signed in, on a page that means harm; and the same browser used as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.callers import Callers, bearer
from tests.e2e.chromium import Chromium, Page, chromium
from tests.e2e.http_client import eventually, get_json, post
from tests.e2e.live_gateway import LiveGateway, running, write_config
from tests.e2e.relay import EmptyPage, Relay

__all__ = ["chromium"]

pytestmark = pytest.mark.browser

EVERYTHING = ["publish", "subscribe", "take", "look"]


@dataclass
class Site:
    """The gateway, and the token of who may do everything there."""

    gateway: LiveGateway
    token: str

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def jobs(self) -> dict[str, int]:
        view: dict[str, int] = await get_json(self.gateway.port, "/mq/demo/Queues/jobs", bearer(self.token))
        return {name: view[name] for name in ("published", "delivered", "readers")}


@contextlib.asynccontextmanager
async def serving(folder: Path, *allowed: str) -> AsyncIterator[Site]:
    callers = Callers(folder)
    token = callers.add("alice")
    auth = callers.auth(policy=[{"principals": ["alice"], "allow": EVERYTHING, "uris": ["demo::*"]}])
    demo = {"mq_type": "Memory", "queues": {"jobs": {}}, "topics": {"news": {}}}
    config = write_config(folder, {"demo": demo}, auth=auth, server={"allowed_origins": list(allowed)})
    async with running(config) as gateway:
        yield Site(gateway, token)


def signing_in(token: str) -> str:
    options = f"{{method: 'POST', headers: {{Authorization: 'Bearer {token}'}}}}"
    return f"fetch('/session', {options}).then((answer) => answer.status)"


WHO = "fetch('/session').then(async (answer) => [answer.status, (await answer.json()).principal])"

#: Everything a page can do about a URL without being let; each step ends, whatever becomes of it.
ATTACK = """
async (base) => {
  const ended = (start) => new Promise((resolve) => { start(resolve); setTimeout(resolve, 1500, "late"); });
  const element = (name, set) => ended((resolve) => {
    const made = document.createElement(name);
    made.onload = () => resolve("loaded");
    made.onerror = () => resolve("error");
    set(made);
    document.body.append(made);
  });
  const fetched = (url, options) => fetch(url, options).then(
    async (answer) => `${answer.type}:${answer.status}:${await answer.text()}`, () => "refused");
  const jobs = `${base}/mq/demo/Queues/jobs`, streams = [`${jobs}/events`, `${base}/mq/demo/Topics/news/events`];
  const told = {};
  for (const type of ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"])
    told[`form ${type}`] = await element("iframe", (frame) => {
      frame.name = `target ${type}`;
      const form = document.createElement("form");
      Object.assign(form, {action: jobs, method: "POST", enctype: type, target: frame.name});
      const field = document.createElement("input");
      Object.assign(field, {name: "a", value: "smuggled"});
      form.append(field);
      document.body.append(form);
      setTimeout(() => form.submit());
    });
  for (const mode of ["cors", "no-cors"])
    for (const credentials of ["include", "omit"]) {
      const options = {method: "POST", body: "smuggled", mode, credentials};
      told[`POST ${mode} ${credentials}`] = await fetched(jobs, options);
      told[`receive ${mode} ${credentials}`] = await fetched(`${jobs}/receive?ack=auto`, {...options, body: ""});
      told[`look ${mode} ${credentials}`] = await fetched(jobs, {mode, credentials});
      told[`stream ${mode} ${credentials}`] = await fetched(streams[0], {mode, credentials});
      told[`session ${mode} ${credentials}`] = await fetched(`${base}/session`, {mode, credentials});
    }
  told.json = await fetched(jobs, {method: "POST", body: "1", credentials: "include",
    headers: {"Content-Type": "application/json"}});
  told.signOut = await fetched(`${base}/session`, {method: "DELETE", credentials: "include"});
  told.ticket = await fetched(`${base}/ticket?uri=demo::Queues::jobs`,
    {method: "POST", mode: "no-cors", credentials: "include"});
  told.beacon = navigator.sendBeacon(jobs, "smuggled");
  for (const url of streams)
    told[`events ${url.slice(base.length)}`] = await ended((resolve) => {
      const source = new EventSource(url, {withCredentials: true});
      source.onmessage = (event) => resolve(`read ${event.data}`);
      source.onopen = () => resolve("open");
      source.onerror = () => { source.close(); resolve("error"); };
    });
  for (const url of [`${jobs}/events`, jobs, `${base}/`]) {
    for (const name of ["img", "script"])
      told[`${name} ${url.slice(base.length)}`] = await element(name, (made) => { made.src = url; });
    told[`link ${url.slice(base.length)}`] = await element("link",
      (made) => Object.assign(made, {rel: "prefetch", href: url}));
    told[`style ${url.slice(base.length)}`] = await element("link",
      (made) => Object.assign(made, {rel: "stylesheet", href: url}));
    await element("iframe", (made) => { made.src = url; });
  }
  told.framed = [...document.querySelectorAll("iframe")].map((frame) => {
    try { return frame.contentDocument?.body.textContent ?? null; } catch { return null; }
  }).filter(Boolean);
  return told;
}
"""


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.1", id="of the same site, so that the cookie is sent"),
        pytest.param("localhost", id="of another site"),
    ],
)
async def test_a_page_that_means_harm_publishes_nothing_and_reads_nothing(
    tmp_path: Path, chromium: Chromium, host: str
) -> None:
    async with serving(tmp_path, "https://dash.example") as site, EmptyPage().listening() as elsewhere:
        assert (await post(site.gateway.port, "/mq/demo/Queues/jobs", "secret", bearer(site.token))).status == 200
        async with chromium.page(f"{site.base}/") as page:
            assert await page.run(signing_in(site.token)) == 200
            assert await page.run(WHO) == [200, "alice"]
        before = await site.jobs()
        assert before == {"published": 1, "delivered": 0, "readers": 0}
        async with chromium.page(f"http://{host}:{elsewhere}/") as page:
            told = await page.run(f"({ATTACK})({json.dumps(site.base)})")
            print(json.dumps(told, indent=1))
            for step, became in told.items():
                assert "secret" not in str(became), step
                assert "alice" not in str(became), step
                if step.split()[0] in {"POST", "receive", "look", "stream", "session", "json", "ticket", "signOut"}:
                    assert became in {"refused", "opaque:0:"}, (step, became)
                if step.split()[0] in {"events", "img", "script"}:
                    assert became == "error", (step, became)
            assert told["framed"] == []
            assert await site.jobs() == before
        arrived = site.gateway.log.read_text().count("method=POST path=/mq/demo/Queues/jobs status=403")
        assert arrived >= 8, "three forms, four simple requests and a beacon reached the gateway"
        async with chromium.page(f"{site.base}/") as page:
            assert await page.run(WHO) == [200, "alice"], "nobody signed it out"
            # As it is meant, with the cookie.
            await page.listen("/mq/demo/Queues/jobs/events")
            assert (await page.seen(2))[1]["data"] == "secret"
            publish = "fetch('/mq/demo/Queues/jobs', {method: 'POST', body: 'mine'}).then((answer) => answer.status)"
            assert await page.run(publish) == 200
            assert (await page.seen(3))[2]["data"] == "mine"


async def test_a_page_of_ours_signs_in_streams_and_signs_out(tmp_path: Path, chromium: Chromium) -> None:
    """Over http, which a browser takes for secure on loopback: it keeps a Secure cookie with the `__Host-` prefix."""
    async with serving(tmp_path) as site, chromium.page(f"{site.base}/") as page:
        assert await page.run(signing_in(site.token)) == 200
        assert await page.run("document.cookie") == "", "no script sees it"
        cookies = (await page.call("Network.getCookies", urls=[site.base]))["cookies"]
        (kept,) = [each for each in cookies if each["name"] == "__Host-mq-gateway"]
        assert (kept["secure"], kept["httpOnly"], kept["sameSite"], kept["path"]) == (True, True, "Strict", "/")
        await page.listen("/mq/demo/Topics/news/events")
        await page.seen(1)
        assert (await post(site.gateway.port, "/mq/demo/Topics/news", "hello", bearer(site.token))).status == 200
        assert (await page.seen(2))[1]["data"] == "hello"
        assert await page.run("fetch('/session', {method: 'DELETE'}).then((answer) => answer.status)") == 204
        async with asyncio.timeout(5):
            assert (await page.seen(3))[2]["name"] == "error", "the stream ends with its session"
        assert (await page.run(WHO))[0] == 401


TICKET = """
async (base, token) => {
  const answer = await fetch(`${base}/ticket`, {method: "POST", body: '{"uris": ["demo::Topics::news"]}',
    headers: {"Authorization": `Bearer ${token}`, "Content-Type": "application/json"}});
  return (await answer.json()).ticket;
}
"""


async def test_a_page_on_the_list_streams_with_a_ticket_and_comes_back_by_itself(
    tmp_path: Path, chromium: Chromium
) -> None:
    async with EmptyPage().listening() as port, serving(tmp_path, f"http://localhost:{port}") as site:
        relay = Relay(site.gateway.port)
        async with relay.listening() as through, chromium.page(f"http://localhost:{port}/") as page:
            base = f"http://127.0.0.1:{through}"
            ticket = await page.run(f"({TICKET})({json.dumps(base)}, {json.dumps(site.token)})")
            await page.listen(f"{base}/mq/demo/Topics/news/events?ticket={ticket}")
            await page.seen(1)
            await _says(site, "one")
            assert (await page.seen(2))[1]["data"] == "one"
            for number in range(2):
                await _cut(site, relay)
                await _says(site, f"missed {number}")
                seen = await page.seen(5 + 3 * number)
                assert [each["name"] for each in seen[-3:]] == ["error", "open", "message"]
                assert seen[-1]["data"] == f"missed {number}"
            opened = [head for head in relay.requests if "/events?ticket=" in head]
            assert ["Last-Event-ID: " in head for head in opened] == [False, True, True]
            # It is of no use to anybody else while it is in use, and not without the position.
            await _second(page, f"{base}/mq/demo/Topics/news/events?ticket={ticket}")
        assert site.token not in site.gateway.log.read_text()
        assert ticket not in site.gateway.log.read_text()


async def _says(site: Site, text: str) -> None:
    assert (await post(site.gateway.port, "/mq/demo/Topics/news", text, bearer(site.token))).status == 200


async def _cut(site: Site, relay: Relay) -> None:
    await relay.cut()

    async def nobody_reads() -> bool:
        view = await get_json(site.gateway.port, "/mq/demo/Topics/news", bearer(site.token))
        return not view["readers"]

    await eventually(nobody_reads, "the end of the stream that was cut")


async def _second(page: Page, url: str) -> None:
    script = f"""new Promise((resolve) => {{
      const other = new EventSource({json.dumps(url)});
      other.onopen = () => resolve("open");
      other.onerror = () => resolve(`error ${{other.readyState}}`);
    }})"""
    assert await page.run(script) == "error 2"
