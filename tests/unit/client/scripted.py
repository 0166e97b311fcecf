"""A gateway that answers what the test says, one answer a request, each on a connection of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """`cut`: the connection breaks within the body. `status` 0: it breaks before the answer. After `delay` seconds."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    delay: float = 0


@dataclass(frozen=True)
class Seen:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """`url` is where it listens, `seen` what was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = iter(answers)
        self.seen: list[Seen] = []
        self.url = ""


def problem(status: int, code: str, headers: Mapping[str, str] | None = None, **members: str) -> Answer:
    """A refusal in the form of the contract."""
    extra = "".join(f', "{key}": "{value}"' for key, value in members.items())
    body = f'{{"code": "{code}", "detail": "why", "retriable": {str(status >= 500).lower()}{extra}}}'
    return Answer(body.encode(), status, headers or {})


@contextmanager
def scripted(*answers: Answer) -> Iterator[Scripted]:
    """Serve the answers in a thread while the context is open."""
    script = Scripted(list(answers))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(script: Scripted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            names = {name.lower(): value for name, value in self.headers.items()}
            script.seen.append(Seen(self.command, self.path, names, body))
            answer = next(script.answers)
            time.sleep(answer.delay)
            self.close_connection = True
            if not answer.status:
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("connection", "close")
            if answer.cut:
                self.send_header("content-length", str(len(answer.body) + 1))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _answer  # noqa: N815  # the names are the library's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
            """A test is quiet."""

    return Handler
