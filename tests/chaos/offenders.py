"""Those who must hurt nobody but themselves: readers that stall or tear, a client that sends what breaks brokers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers.process import LOOPBACK
from tests.chaos.client import BROKEN, Connection, head
from tests.chaos.ledger import Flow
from tests.chaos.site import Site

#: Bytes of events after which nothing fits any more between the gateway and a reader that does not read.
_FULL = 512 << 10
#: server.write_timeout, and the seconds granted on top of it on a shared machine.
_WRITE_TIMEOUT = 10.0
_SLACK = 5.0
_TCP_ESTABLISHED = 1
_STALLER_PAUSE = 5.0


@dataclass
class Staller:
    """Opens a stream of `flow` and reads nothing of it: must be cut off when it has been full for 10 seconds.

    It is taken for full when as much was published as fits, and its socket has got nothing more since.
    """

    site: Site
    flow: Flow
    path: str
    #: Bytes of one message, as many of it as come to this reader.
    size: int
    cut: int = 0
    slowest: float = 0.0
    survived: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.site.ready.wait()
            with contextlib.suppress(*BROKEN):
                await self._stall()
            await asyncio.sleep(_STALLER_PAUSE)

    async def _stall(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(sock, (LOOPBACK, self.site.port))
            await loop.sock_sendall(sock, head("GET", f"{self.path}/events"))
            # An answer that is no stream leaves a connection that may stay.
            if not (await loop.sock_recv(sock, 16)).startswith(b"HTTP/1.1 200"):
                return
            generation = self.site.generation
            full, unsent = await self._until_full(sock), -1
            while full is not None and generation == self.site.generation and self.site.ready.is_set():
                await asyncio.sleep(0.2)
                if (now := _unsent(self.site.port, sock.getsockname()[1])) > unsent:
                    unsent, full = now, time.monotonic()  # it got some more: others had taken what was meant for it
                if self._over(sock, time.monotonic() - full):
                    return

    async def _until_full(self, sock: socket.socket) -> float | None:
        """When as much was published as fits; None where the connection ended before."""
        before = len(self.flow.confirmed)
        while (len(self.flow.confirmed) - before) * self.size < _FULL:
            await asyncio.sleep(0.2)
            if not _established(sock):
                return None
        return time.monotonic()

    def _over(self, sock: socket.socket, waited: float) -> bool:
        if not _established(sock):
            self.cut += 1
            self.slowest = max(self.slowest, waited)
            return True
        if waited > _WRITE_TIMEOUT + _SLACK:
            self.survived += 1
            self.site.say(f"STALLED reader of {self.path} is still connected after {waited:.1f} s")
            return True
        return False


def _unsent(port: int, client: int) -> int:
    """Bytes that the kernel keeps at the gateway's end of a connection; 0 where that is gone."""
    ends = f":{port:04X}", f":{client:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, _state, queues = line.split()[1:5]
        if (local[-5:], remote[-5:]) == ends:
            return int(queues.partition(":")[0], 16)
    return 0


def _established(sock: socket.socket) -> bool:
    """As the kernel sees it: the first byte of struct tcp_info is the state."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_ESTABLISHED


@dataclass(frozen=True)
class Case:
    """A request that must be refused with one of these statuses."""

    method: str
    target: str
    expected: frozenset[int]
    body: bytes | None = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


def _refused(status: int, target: str = "Queues/work", body: bytes = b"{}", **headers: str) -> Case:
    # 503: it is draining.
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Case("POST", f"/mq/mq/{target}", frozenset({status, 503}), body, named)


CASES = (
    _refused(400, "Queues/a,b"),
    _refused(400, "Topics/news.*"),
    _refused(400, "Topics/%23"),
    _refused(400, "Topics/%3E"),
    _refused(400, "Queues/a%00b"),
    _refused(400, "Queues/"),
    _refused(404, "Queues/..%2F..%2Famq.queue%2Fwork"),
    _refused(404, "Topics/news%2Fx"),
    _refused(404, "Queues/nobody-declared-me"),
    _refused(400, Mq_Header_destination="/queue/kept"),
    _refused(400, Mq_Header_receipt="1"),
    _refused(400, Mq_Header_reply_to="/temp-queue/x"),
    _refused(400, Mq_Headers='{"content-length": "1"}'),
    _refused(400, Mq_Headers='{"x": 1}'),
    _refused(400, Mq_Priority="11"),
    _refused(400, body=b'{"half": ', Content_Type="application/json"),
    _refused(415, Content_Encoding="gzip"),
    _refused(413, body=b"x" * 4_200_000),
    Case("GET", "/mq/mq/Topics/%2A/events", frozenset({400, 503}), None),
    Case("GET", "/mq/mq/Queues/nobody-declared-me/events", frozenset({404, 503}), None),
)
#: A declared destination whose exchange does not exist: RabbitMQ refuses, and ends the connection.
POISON = (
    Case("POST", "/mq/mq/Queues/poison?timeout=2", frozenset({502, 503, 504})),
    Case("POST", "/mq/mq/Topics/poison?timeout=2", frozenset({502, 503, 504})),
    Case("GET", "/mq/mq/Topics/poison/events", frozenset({502, 503, 504}), None),
)


class Poisoner:
    """Sends what must be refused, one of the cases every `pause` seconds; `burst` sends what ends connections."""

    def __init__(self, site: Site, seed: int, pause: float = 0.5) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._pause = pause
        self.answers: Counter[int] = Counter()
        #: Cases that were answered otherwise than they must be.
        self.unexpected: list[str] = []

    async def run(self) -> None:
        """Until the site stops."""
        while not self._site.stopping.is_set():
            await self._site.ready.wait()
            await self.send(self._random.choice(CASES))
            await asyncio.sleep(self._pause)

    async def burst(self, times: int = 3) -> None:
        """Ends the shared connection some times, until the destination is made to rest."""
        for _ in range(times):
            for case in POISON:
                await self.send(case)

    async def send(self, case: Case) -> None:
        """Send on a connection of its own and check the answer; no answer is none where the gateway ends."""
        try:
            async with await Connection.open(self._site.port) as connection:
                answer = await connection.ask(case.method, case.target, case.body, case.headers)
        except BROKEN as error:
            # A body that is refused unread may be answered with a reset.
            self.answers[0] += 1
            if isinstance(error, TimeoutError):
                self.unexpected.append(f"{case.method} {case.target}: no answer")
            return
        self.answers[answer.status] += 1
        if answer.status not in case.expected:
            self.unexpected.append(f"{case.method} {case.target} {case.headers}: {answer.status} {answer.code}")
