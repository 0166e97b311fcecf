"""A process with a server and a tiny application, for signals and exit codes: its options are one JSON object.

Prints the base URL when it listens, and one word for every step of the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
from types import SimpleNamespace
from typing import Any

from app.config.settings import Settings
from app.server import run


class DrainApp:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.draining = asyncio.Event()
        self.state = SimpleNamespace()
        if options.get("hook", True):
            self.state.gateway_drain = self.drain

    async def drain(self) -> None:
        print("drain", flush=True)
        if self.options.get("hook") == "fails":
            raise LookupError("as the test wants it")
        self.draining.set()
        if self.options.get("hook") == "hangs":
            await asyncio.Event().wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
        elif scope["path"] == "/stream":
            await self.stream(send)
        elif scope["path"] == "/slow":
            await self.slow(send)
        elif scope["path"] == "/stubborn":
            await self.stubborn(send)
        else:
            status = 503 if self.draining.is_set() else 200
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    async def lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        if self.options.get("startup") == "fails":
            await send({"type": "lifespan.startup.failed", "message": "as the test wants it"})
            return
        if self.options.get("startup") == "hangs":
            print("starting", flush=True)
            await asyncio.Event().wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stopping", flush=True)
        if self.options.get("shutdown") == "hangs":
            await asyncio.Event().wait()
        if self.options.get("shutdown") == "fails":
            await send({"type": "lifespan.shutdown.failed", "message": "as the test wants it"})
            return
        await send({"type": "lifespan.shutdown.complete"})

    async def stream(self, send: Any) -> None:
        """Idle until the drain begins."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        await self.draining.wait()
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n"})

    async def slow(self, send: Any) -> None:
        """In flight when the drain begins, done a little later."""
        print("slow", flush=True)
        await self.draining.wait()
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"slow"})

    async def stubborn(self, send: Any) -> None:
        """Sends more than anybody takes, and never looks at the drain."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (16 << 20), "more_body": True})
        print("written", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("cancelled", flush=True)


def main() -> int:
    given: dict[str, Any] = json.loads(sys.argv[1])
    if "descriptors" in given:
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(given["descriptors"]))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    settings = Settings.model_validate({"server": given.get("server", {}), "limits": given.get("limits", {})})
    return run(DrainApp(given.get("app", {})), settings, lambda url: print(url, flush=True))


if __name__ == "__main__":
    sys.exit(main())
