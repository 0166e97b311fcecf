"""What authentication and a policy cost: the same work at gateways with and without them, in pairs.

python bench/auth_cost.py [--pairs 7] [--publishes 20000] [--readers 200] [--events 400]

Prints the processor time of the gateway for one publish and for one delivered event (user and system, of its process
alone, in microseconds), the median over the pairs, and the ratio to `none`. All in memory: a broker's part would make
every ratio smaller. Wall time is told for comparison; load and gateway share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.auth.token_change import change_tokens  # noqa: E402
from app.auth.token_file import TokenEntry, hash_of, new_token  # noqa: E402

CONNECTIONS = 32
#: Rules before the one that allows.
RULES = 50
BODY = json.dumps({"JobID": 123456, "Status": "Running", "Site": "LCG.IN2P3.fr", "Text": "x" * 160}).encode()


@dataclass
class Subject:
    """One gateway under load."""

    name: str
    port: int
    pid: int
    header: bytes
    publish: list[float] = field(default_factory=list)
    event: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def cpu(self) -> float:
        """Processor time of all its threads so far, in seconds (proc(5), schedstat: nanoseconds on a processor)."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def post(subject: Subject, path: str, count: int, connections: int) -> None:
    """Publishes on keep-alive connections, each waiting for its answer; fails at any answer but 200."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
    request = head + subject.header + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

    async def work(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        for _ in range(share):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(work(count // connections) for _ in range(connections)))


@contextlib.asynccontextmanager
async def readers(subject: Subject, count: int, events: int) -> AsyncIterator[asyncio.Future[list[None]]]:
    """Streams of the Topic; the future is done when each has seen all events."""
    opened = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port, limit=1 << 20)
        request = b"GET /mq/demo/Topics/events/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
        writer.write(request + subject.header + b"\r\n")
        head = await reader.readuntil(b"welcome")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        opened.append((reader, writer))

    async def drink(reader: asyncio.StreamReader) -> None:
        seen = 0
        while seen < events:
            seen += (await reader.read(1 << 16)).count(b"data:")

    try:
        yield asyncio.gather(*(drink(reader) for reader, _ in opened))
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def measure_publish(subject: Subject, args: argparse.Namespace) -> None:
    before, began = subject.cpu(), time.perf_counter()
    await post(subject, "/mq/demo/Topics/nobody", args.publishes, CONNECTIONS)
    subject.rates.append(args.publishes / (time.perf_counter() - began))
    subject.publish.append((subject.cpu() - before) / args.publishes * 1e6)


async def measure_fan_out(subject: Subject, args: argparse.Namespace) -> None:
    async with readers(subject, args.readers, args.events) as all_seen:
        before = subject.cpu()
        await post(subject, "/mq/demo/Topics/events", args.events, 1)
        await all_seen
        subject.event.append((subject.cpu() - before) / (args.events * args.readers) * 1e6)


def configurations(folder: Path) -> list[tuple[str, dict[str, object], bytes]]:
    """Name, `auth` and the Authorization header of each subject."""
    token = new_token()
    entry = TokenEntry(name="dash", principal="dash", hash=hash_of(token), created_at=time.time())
    change_tokens(folder / "tokens.json", lambda _before: [entry])
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k", "use": "sig"}]}))
    claims = {
        "iss": "i",
        "aud": "mq",
        "sub": "dash",
        "exp": int(time.time()) + 3600,
        "vo": "lhcb",
        "groups": ["a", "b"],
    }
    signed = jwt.encode(claims, key, "RS256", headers={"kid": "k"})
    rules: list[dict[str, object]] = [
        {"principals": [f"other{n}", f"group:g{n}"], "allow": ["publish"], "uris": [f"*::Queues::{n}.*"]}
        for n in range(RULES)
    ]
    rules.append({"principals": ["dash"], "allow": ["publish", "subscribe"], "uris": ["demo::Topics::*"]})
    by_token: dict[str, object] = {"mode": "token", "tokens_file": str(folder / "tokens.json"), "policy": rules}
    by_jwt: dict[str, object] = {
        "mode": "jwt",
        "policy": rules,
        "jwt": {"issuer": "i", "audience": "mq", "jwks_file": str(folder / "keys.json")},
    }
    return [
        ("none", {"mode": "none"}, b""),
        ("token", by_token, f"Authorization: Bearer {token}\r\n".encode()),
        ("jwt", by_jwt, f"Authorization: Bearer {signed}\r\n".encode()),
    ]


@contextlib.asynccontextmanager
async def gateway(folder: Path, name: str, auth: dict[str, object], header: bytes) -> AsyncIterator[Subject]:
    """A gateway process, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = {"mq_type": "Memory", "topics": {"events": {}, "nobody": {}}}
    limits = {"streams_per_principal": 100_000}
    config = {
        "server": {"port": port, "log_level": "warning"},
        "services": {"demo": demo},
        "auth": auth,
        "limits": limits,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", "--config", str(path), cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until_listening(port)
        yield Subject(name, port, process.pid, header)
    finally:
        process.terminate()
        await process.wait()


async def until_listening(port: int) -> None:
    """Returns when somebody accepts there, at most 20 s later."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            subjects = [await stack.enter_async_context(gateway(folder, *each)) for each in configurations(folder)]
            for number in range(args.pairs + 1):
                # Each time in another order; the first round warms up and does not count.
                for subject in subjects[number % len(subjects) :] + subjects[: number % len(subjects)]:
                    for work in (measure_publish, measure_fan_out):
                        await work(subject, args)
            report(subjects)


def report(subjects: list[Subject]) -> None:
    """One line for each subject; ratios are medians of the ratios of each round."""
    base = subjects[0]
    print(f"{'':8}{'us/publish':>12}{'ratio':>8}{'us/event':>12}{'ratio':>8}{'publishes/s':>14}")
    for subject in subjects:
        publish, event = statistics.median(subject.publish[1:]), statistics.median(subject.event[1:])
        ratios = ratio(subject, base, lambda one: one.publish), ratio(subject, base, lambda one: one.event)
        rate = statistics.median(subject.rates[1:])
        print(f"{subject.name:8}{publish:12.1f}{ratios[0]:8.3f}{event:12.2f}{ratios[1]:8.3f}{rate:14.0f}")


def ratio(subject: Subject, base: Subject, of: Callable[[Subject], list[float]]) -> float:
    return statistics.median(one / two for one, two in zip(of(subject)[1:], of(base)[1:], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--publishes", type=int, default=20_000)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--events", type=int, default=400)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
