"""A real Chromium, headless, driven over the Chrome DevTools Protocol; it reaches nothing but loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.brokers.process import wait_until
from tests.e2e.http_client import PATIENCE, ask, eventually
from tests.tools import not_run

FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # the sandbox refuses to run as root
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--proxy-server=direct://",
)

#: What a page does with an event stream: everything is kept, `seen(n)` resolves when there are n entries.
LISTEN = """
(url) => {
  window.source?.close();
  window.events = []; window.waiting = [];
  const note = (entry) => { events.push(entry); waiting = waiting.filter((check) => !check()); };
  window.seen = (number) => new Promise((resolve) => {
    const check = () => events.length >= number && (resolve(events), true);
    check() || waiting.push(check);
  });
  window.source = new EventSource(url);
  for (const name of ["message", "binary", "gap", "unavailable", "status", "lease"])
    source.addEventListener(name, (event) => note({name: event.type, data: event.data, id: event.lastEventId}));
  source.onopen = () => note({name: "open"});
  source.onerror = () => note({name: "error", state: source.readyState});
}
"""


class Chromium:
    """The process; `port` is DevTools'."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        if program is None:
            not_run("chromium")
        self._folder = folder
        self.port = 0
        self.popen = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def await_start(self) -> None:
        """Wait for the file in which it leaves DevTools' port."""
        found = self._folder / "DevToolsActivePort"
        wait_until(lambda: found.exists() and "\n" in found.read_text(), PATIENCE, "chromium did not start")
        self.port = int(found.read_text().split()[0])

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()

    @contextlib.asynccontextmanager
    async def page(self, url: str) -> AsyncIterator[Page]:
        """A new tab that has loaded `url`."""
        opened = (await ask(self.port, "PUT", "/json/new?about:blank")).json
        address = f"ws://127.0.0.1:{self.port}/devtools/page/{opened['id']}"
        async with connect(address, max_size=None, proxy=None) as socket:
            page = Page(socket)
            try:
                await page.load(url)
                yield page
            finally:
                await ask(self.port, "GET", f"/json/close/{opened['id']}")


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its result; what Chromium tells meanwhile is dropped."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(PATIENCE):
            while (answer := json.loads(await self._socket.recv())).get("id") != number:
                pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def load(self, url: str) -> None:
        await self.call("Page.enable")
        result = await self.call("Page.navigate", url=url)
        assert "errorText" not in result, result

        async def loaded() -> bool:
            return bool(await self.run("[document.readyState, location.href]") == ["complete", url])

        await eventually(loaded, f"{url} in the browser")

    async def run(self, script: str) -> Any:
        """The value of an expression; of a promise what it resolves to. Raises AssertionError at an exception."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def listen(self, url: str) -> None:
        """Open an EventSource."""
        await self.run(f"({LISTEN})({json.dumps(url)})")

    async def seen(self, number: int) -> list[dict[str, Any]]:
        """What the EventSource has fired, once that are at least `number` entries."""
        events: list[dict[str, Any]] = await self.run(f"seen({number})")
        return events


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for a module; every test has its own tab."""
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    try:
        browser.await_start()
        yield browser
    finally:
        browser.end()
