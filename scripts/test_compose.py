"""docker-compose.yml on a real engine: builds, starts, publishes, reads, breaks the broker, stops.

Runs under a project name, an image name, a port and a password of its own, so that it touches no other project
on the machine, and removes all of it at the end. Standard library only.

Exit codes: 0 all held, 1 something did not, 2 no engine to try it on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "mq-gateway-test"
IMAGE = "mq-gateway-test:local"
#: docker-compose.yml's stop_grace_period of the gateway, in seconds.
GRACE = 35.0
#: Seconds from the broker's container being back to the first confirmed publish: its boot on a busy machine, then
#: the longest pause between two attempts (reconnect.max with its jitter, 16.5).
HEAL = 60.0
#: Seconds for anything else that one waits for.
PATIENCE = 20.0


class Failed(Exception):
    """An expectation that did not hold; the message says what was seen."""


def expect(held: object, what: str, seen: object = "") -> None:
    """Say that it held, or raise Failed."""
    if not held:
        raise Failed(f"{what}: {seen}" if seen != "" else what)
    print(f"ok    {what}", flush=True)


def free_port() -> int:
    """A port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Compose:
    """The project under test, by the commands its users would type."""

    port: int
    password_file: Path
    environ: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ours = {"GATEWAY_PORT": str(self.port), "GATEWAY_IMAGE": IMAGE, "MQ_PASSWORD_FILE": str(self.password_file)}
        object.__setattr__(self, "environ", {**os.environ, **ours})

    def run(self, *args: str, seconds: float = 60, check: bool = True) -> str:
        """`docker compose ARGS`; returns standard output. Raises Failed with standard error."""
        return docker(
            *("compose", "--project-name", PROJECT, "--project-directory", str(ROOT), *args),
            seconds=seconds,
            check=check,
            environ=self.environ,
        )

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's container, running or not."""
        container = self.run("ps", "--all", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found

    def broker(self, *args: str) -> list[dict[str, Any]]:
        """`rabbitmqctl ARGS` inside the broker's container, as JSON."""
        command = ("gosu", "rabbitmq", "rabbitmqctl", "--quiet", *args, "--formatter", "json")
        rows: list[dict[str, Any]] = json.loads(self.run("exec", "-T", "rabbitmq", *command))
        return rows

    def messages(self, name: str) -> int:
        """How many messages the durable queue holds; -1 where there is none."""
        rows = self.broker("list_queues", "name", "messages", "durable")
        return next((int(row["messages"]) for row in rows if row["name"] == name and row["durable"]), -1)


def docker(*args: str, seconds: float = 60, check: bool = True, environ: dict[str, str] | None = None) -> str:
    """`docker ARGS`; returns standard output. Raises Failed with standard error, also after `seconds`."""
    try:
        done = subprocess.run(
            ("docker", *args), capture_output=True, text=True, timeout=seconds, check=False, env=environ
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"docker {' '.join(args)}: not done within {seconds:g} s") from None
    if check and done.returncode:
        raise Failed(f"docker {' '.join(args)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Client:
    """HTTP through the published port, as anybody on the machine would."""

    port: int

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON body; (0, reason) where nobody answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def publish(self, destination: str, body: str) -> tuple[int, Any]:
        """POST a text to `Queues/…` or `Topics/…` of the demo configuration."""
        return self.request("POST", f"/mq/rabbitmq/{destination}", body.encode(), {"content-type": "text/plain"})

    @contextlib.contextmanager
    def events(self, destination: str) -> Iterator[Events]:
        """The open event stream; raises Failed where it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", f"/mq/rabbitmq/{destination}/events", headers={"accept": "text/event-stream"})
            # Kept apart: the connection forgets its socket where the server closes after its answer.
            sock = connection.sock
            answer = connection.getresponse()
            expect(answer.status == 200, f"event stream of {destination} is open", answer.status)
            stream = Events(answer)
            try:
                yield stream
            finally:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                stream.thread.join(PATIENCE)
        finally:
            connection.close()


class Events:
    """Reads a stream in a thread; `next` waits for the event one is after."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self._events: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        kind, data = "message", list[str]()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while line := self._answer.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                if name == "event":
                    kind = value.strip()
                elif name == "data":
                    data.append(value.removeprefix(" "))
                elif not name and not value:
                    if data:
                        self._events.put((kind, "\n".join(data)))
                    kind, data = "message", []
        self._events.put(None)

    def next(self, kind: str, seconds: float = PATIENCE) -> str:
        """Data of the next event, which must be of this kind. Raises Failed."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            raise Failed(f"no event `{kind}` within {seconds:g} s") from None
        if event is None:
            raise Failed(f"the stream ended instead of sending an event `{kind}`")
        if event[0] != kind:
            raise Failed(f"event `{event[0]}` ({event[1]!r}) where `{kind}` was expected")
        return event[1]

    def ended(self, seconds: float) -> bool:
        """Whether the server ends the stream, whatever it still sends."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while (left := deadline - time.monotonic()) > 0:
                if self._events.get(timeout=left) is None:
                    return True
        return False


def start(compose: Compose) -> None:
    """The image builds and both services become healthy."""
    began = time.monotonic()
    compose.run("up", "--detach", "--build", "--wait", "--wait-timeout", "240", seconds=900)
    expect(True, f"up --build --wait: both services healthy after {time.monotonic() - began:.0f} s")
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
    print(f"      image size {size / 1e6:.0f} MB, base included")


def check_confinement(compose: Compose) -> None:
    """The gateway runs without rights, without a writable file system, and without the password in view."""
    described = compose.inspect("gateway")
    expect(described["Config"]["User"] == "10001:10001", "the image's user is 10001", described["Config"]["User"])
    expect(described["HostConfig"]["ReadonlyRootfs"], "the root file system is read-only by configuration")
    status = compose.run("exec", "-T", "gateway", "cat", "/proc/1/status")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    expect(set(fields["Uid"].split()) == {"10001"}, "every uid of the process is 10001", fields["Uid"])
    for capabilities in ("CapEff", "CapPrm", "CapBnd"):
        expect(int(fields[capabilities], 16) == 0, f"{capabilities} is empty", fields[capabilities])
    expect(fields["NoNewPrivs"].strip() == "1", "the process can gain no privileges")
    probe = "import errno\nfor p in ('/x', '/opt/mq-gateway/x', '/etc/mq-gateway/x'):\n"
    probe += " try: open(p, 'w')\n except OSError as e: assert e.errno == errno.EROFS, e\n else: raise SystemExit(p)"
    compose.run("exec", "-T", "gateway", "python", "-c", probe)
    expect(True, "writing to /, the application or its configuration says read-only")
    tools = "import shutil; print([t for t in ('gcc', 'cc', 'make', 'pip', 'pip3') if shutil.which(t)])"
    found = compose.run("exec", "-T", "gateway", "python", "-c", tools).strip()
    expect(found == "[]", "no compiler and no installer in the image", found)
    published = compose.run("port", "gateway", "8080").strip()
    expect(published == f"127.0.0.1:{compose.port}", "published on loopback only", published)
    ports = compose.inspect("rabbitmq")["HostConfig"]["PortBindings"]
    expect(not ports, "no port of the broker is published", ports)


def check_secret(compose: Compose) -> None:
    """The password is in no description of a container and in no log."""
    password = compose.password_file.read_text(encoding="utf-8").strip()
    seen = [json.dumps(compose.inspect(service)) for service in ("gateway", "rabbitmq")]
    seen.append(compose.run("logs", "--no-color"))
    expect(not any(password in text for text in seen), "the password is in no description and no log")


def check_messages(compose: Compose, client: Client, stream: Events, kept: str) -> None:
    """A POST reaches the reader, a message for nobody yet is in the broker, over one connection."""
    status, answer = client.request("GET", "/health/ready")
    expect(status == 200, "ready", answer)
    status, answer = client.publish("Topics/status", "hello")
    expect(status == 200 and answer["confirmed"], "POST to a Topic is confirmed by the broker", (status, answer))
    text = stream.next("message")
    expect(text == "hello", "the event comes through the published port", text)
    status, answer = client.publish("Queues/jobs", kept)
    expect(status == 200 and answer["confirmed"], "POST to a Queue is confirmed by the broker", (status, answer))
    expect(answer["persistent"], "a Queue's message is persistent by default", answer)
    status, answer = client.publish("Queues/orders", kept)
    expect(status == 200, "POST to a quorum queue is confirmed by the broker", (status, answer))
    expect(compose.messages("jobs") == 1, "rabbitmqctl list_queues shows the message", compose.messages("jobs"))
    types = {row["name"]: row["type"] for row in compose.broker("list_queues", "name", "type")}
    expect(types.get("orders") == "quorum", "the quorum queue is one", types)
    expect_one_connection(compose)


def expect_one_connection(compose: Compose) -> None:
    """The service is one STOMP connection of the dedicated user, however many requests there were."""
    rows = compose.broker("list_stomp_connections", "conn_name", "auth_login")
    expect([row["auth_login"] for row in rows] == ["mq-gateway"], "exactly one STOMP connection, of mq-gateway", rows)


def check_host(client: Client) -> None:
    """Names of this machine and of the service are let in, a rebound name is not."""
    for name in (f"localhost:{client.port}", "gateway:8080"):
        status, answer = client.request("GET", "/mq", headers={"host": name})
        expect(status == 200, f"Host {name} is accepted", (status, answer))
    status, answer = client.request("GET", "/mq", headers={"host": "rebound.example"})
    expect(status == 403, "a foreign Host is refused", (status, answer))


def check_broker_restart(compose: Compose, client: Client, stream: Events, kept: str) -> None:
    """The broker goes and comes back: the gateway heals by itself, and nothing durable or open is lost."""
    compose.run("restart", "rabbitmq", seconds=150)
    began = time.monotonic()
    status, answer = client.publish("Queues/orders", "healed")
    while status != 200 and time.monotonic() - began < HEAL:
        # A link that is down answers at once; one that is connecting keeps the request.
        time.sleep(0.2)
        status, answer = client.publish("Queues/orders", "healed")
    expect(
        status == 200,
        f"publishes are confirmed again {time.monotonic() - began:.1f} s after `restart`",
        (status, answer),
    )
    gap = json.loads(stream.next("gap"))
    expect(gap["reason"] == "link_lost", "the open stream says what may be missing", gap)
    status, answer = client.publish("Topics/status", "after")
    expect(status == 200, "POST to a Topic is confirmed by the broker", (status, answer))
    text = stream.next("message")
    expect(text == "after", "and goes on with later events", text)
    expect(compose.messages("jobs") == 1, "the durable message is still in the broker", compose.messages("jobs"))
    with client.events("Queues/jobs") as jobs:
        text = jobs.next("message")
    expect(text == kept, "and is delivered", text)
    expect_one_connection(compose)


def check_stop(compose: Compose, stream: Events) -> None:
    """`docker compose stop` drains: streams are ended by us, exit code 0, in time."""
    began = time.monotonic()
    compose.run("stop", "gateway", seconds=GRACE + 30)
    took = time.monotonic() - began
    state = compose.inspect("gateway")["State"]
    expect(
        state["ExitCode"] == 0 and not state["OOMKilled"],
        f"the gateway stopped with exit code 0 in {took:.1f} s",
        state,
    )
    expect(took < GRACE, f"within its {GRACE:g} s", took)
    expect(stream.ended(PATIENCE), "its open stream was ended")
    rows = compose.broker("list_stomp_connections", "conn_name", "auth_login")
    expect(rows == [], "and its connection to the broker", rows)


def scenario(compose: Compose) -> None:
    """Everything that is to hold, in the order a day would have it."""
    client = Client(port=compose.port)
    kept = f"kept-{uuid.uuid4()}"
    start(compose)
    check_confinement(compose)
    check_host(client)
    with client.events("Topics/status") as stream:
        check_messages(compose, client, stream, kept)
        check_broker_restart(compose, client, stream, kept)
        check_secret(compose)
        check_stop(compose, stream)


def remove(compose: Compose) -> None:
    """Everything of the project: containers, volume, network, image."""
    compose.run("down", "--volumes", "--remove-orphans", "--timeout", "20", seconds=120, check=False)
    docker("image", "rm", "--force", IMAGE, check=False)


def engine() -> str | None:
    """Why there is nothing to try it on; None where there is."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        docker("version", "--format", "{{.Server.Version}}", seconds=20)
        docker("compose", "version", seconds=20)
    except Failed as reason:
        return str(reason).strip()
    return None


def main() -> int:
    """Run the scenario; returns the exit code."""
    if (reason := engine()) is not None:
        print(f"SKIPPED: no docker engine with compose here ({reason})")
        return 2
    # Ended from outside, it still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # mkdtemp's folder is for its owner only; the file inside must be readable by the gateway's user.
    folder = Path(tempfile.mkdtemp(prefix="mq-gateway-compose-"))
    password_file = folder / "password.txt"
    password_file.write_text(f"{secrets.token_urlsafe(24)}\n", encoding="utf-8")
    password_file.chmod(0o444)
    compose = Compose(port=free_port(), password_file=password_file)
    try:
        remove(compose)
        scenario(compose)
    except Failed as failure:
        print(f"FAILED {failure}", flush=True)
        print(compose.run("logs", "--no-color", "--tail", "40", "gateway", check=False))
        return 1
    finally:
        remove(compose)
        shutil.rmtree(folder)
    print("docker-compose.yml holds what it promises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
