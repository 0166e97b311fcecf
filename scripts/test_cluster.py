"""deploy/cluster on a real engine: builds, starts, and loses a node and a replica while publishers are at work.

Every publish that was answered with 200 must be in its quorum queue afterwards. Under names, a port and secrets of its
own, all removed at the end. Where HAProxy's image cannot be had, the package of Debian stands in for it.

Exit codes: 0 all held, 1 something did not, 2 no engine to try it on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # it is run as a file

from scripts.test_compose import Events, Failed, docker, engine, expect, free_port  # noqa: E402

PROJECT = "mq-gateway-cluster-test"
IMAGE = "mq-gateway-cluster-test:local"
PROXY, STAND_IN = "haproxy:3.0", "mq-gateway-haproxy-test:local"
_DOCKERFILE = """FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""
PUBLISHERS = 8
#: Seconds of load, and when in it a node and a replica are killed.
LOAD, NODE_DIES, REPLICA_DIES = 40.0, 8.0, 24.0
#: Seconds without an answer after which a publisher gives up; more than the publish's own timeout.
PATIENCE = 20.0
#: Seconds in which publishes have to be confirmed again after a loss.
HEAL = 12.0


@dataclass
class Publisher:
    """One message after the other, and what became of each."""

    port: int
    name: int
    confirmed: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    #: When confirmed ones were answered, in seconds of the monotonic clock.
    times: list[float] = field(default_factory=list)

    def run(self, until: float) -> None:
        """Publish until that time."""
        number = 0
        while time.monotonic() < until:
            number += 1
            text = f"{self.name}-{number}"
            status = self._publish(text)
            self.answers[status] += 1
            if status == 200:
                self.confirmed.add(text)
                self.times.append(time.monotonic())
            else:
                time.sleep(0.05)

    def _publish(self, text: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/mq/mq/Queues/orders", text.encode(), {"content-type": "text/plain"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
        return answer.status


@dataclass(frozen=True)
class Cluster:
    """The project under test, by the commands its users would type."""

    port: int
    environ: dict[str, str]

    def run(self, *args: str, seconds: float = 120, check: bool = True) -> str:
        """`docker compose ARGS`; returns standard output. Raises Failed with standard error."""
        file = str(ROOT / "deploy" / "cluster" / "docker-compose.yml")
        return docker(
            "compose",
            "--project-name",
            PROJECT,
            "--file",
            file,
            *args,
            seconds=seconds,
            check=check,
            environ=self.environ,
        )

    @contextlib.contextmanager
    def events(self, destination: str) -> Iterator[Events]:
        """The open event stream, through the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", f"/mq/mq/{destination}/events", headers={"accept": "text/event-stream"})
            answer = connection.getresponse()
            expect(answer.status == 200, f"event stream of {destination} is open", answer.status)
            yield Events(answer)
        finally:
            connection.close()


def proxy_image() -> str:
    """HAProxy's own image where it is here or can be had, else Debian's package in one."""
    for command in (("image", "inspect", PROXY), ("pull", "--quiet", PROXY)):
        with contextlib.suppress(Failed):
            docker(*command, seconds=60)
            return PROXY
    print(f"      {PROXY} cannot be had, Debian's package stands in for it")
    built = subprocess.run(
        ("docker", "build", "--quiet", "--tag", STAND_IN, "-"),
        input=_DOCKERFILE,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if built.returncode:
        raise Failed(f"no proxy: {built.stderr[-2000:]}")
    return STAND_IN


def start(cluster: Cluster) -> None:
    """Three nodes are one cluster, two replicas are behind the proxy."""
    began = time.monotonic()
    cluster.run("up", "--detach", "--build", "--wait", "--wait-timeout", "400", seconds=1200)
    expect(True, f"up --build --wait: everything healthy after {time.monotonic() - began:.0f} s")
    command = ("gosu", "rabbitmq", "rabbitmqctl", "--quiet", "cluster_status", "--formatter", "json")
    running = json.loads(cluster.run("exec", "-T", "mq3", *command))["running_nodes"]
    expect(len(running) == 3, "three nodes are one cluster", running)


def under_load(cluster: Cluster) -> list[Publisher]:
    """Kill a node, then a replica, while publishers are at work."""
    began = time.monotonic()
    publishers = [Publisher(cluster.port, name) for name in range(PUBLISHERS)]
    threads = [threading.Thread(target=each.run, args=(began + LOAD,), daemon=True) for each in publishers]
    for thread in threads:
        thread.start()
    for at, victim in ((NODE_DIES, "mq1"), (REPLICA_DIES, "gateway-2")):
        time.sleep(max(0.0, began + at - time.monotonic()))
        cluster.run("kill", victim)
        killed = time.monotonic()
        time.sleep(HEAL)
        times = [when for each in publishers for when in each.times if when > killed]
        expect(times, f"publishes are confirmed again after {victim} was killed")
        print(f"      longest pause between two confirmed publishes: {longest_pause(killed, sorted(times)):.1f} s")
    for thread in threads:
        thread.join(LOAD + 2 * PATIENCE)
    return publishers


def longest_pause(since: float, times: list[float]) -> float:
    """Seconds."""
    return max(later - earlier for earlier, later in zip([since, *times], times, strict=False))


def read_all(cluster: Cluster, wanted: set[str]) -> Counter[str]:
    """Everything in the queue, until nothing has come for a while."""
    seen: Counter[str] = Counter()
    with cluster.events("Queues/orders") as stream, contextlib.suppress(Failed):
        while True:
            seen[stream.next("message", seconds=3 if wanted <= seen.keys() else 30)] += 1
    return seen


def scenario(cluster: Cluster) -> None:
    """Everything that is to hold."""
    start(cluster)
    publishers = under_load(cluster)
    confirmed = set().union(*(each.confirmed for each in publishers))
    print(f"      answers: {dict(sum((each.answers for each in publishers), Counter[int]()))}")
    seen = read_all(cluster, confirmed)
    expect(confirmed <= seen.keys(), f"all {len(confirmed)} confirmed messages are there", confirmed - seen.keys())
    print(f"      delivered {seen.total()}, of it not confirmed {len(seen.keys() - confirmed)}")


def main() -> int:
    """Run the scenario; returns the exit code."""
    if (reason := engine()) is not None:
        print(f"SKIPPED: no docker engine with compose here ({reason})")
        return 2
    # Ended from outside, it still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="mq-gateway-cluster-"))
    ours = {}
    for variable in ("MQ_PASSWORD_FILE", "ERLANG_COOKIE_FILE", "GATEWAY_SECRET_FILE"):
        file = folder / variable.lower()
        file.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        file.chmod(0o444)
        ours[variable] = str(file)
    cluster = None
    try:
        ours |= {"GATEWAY_PORT": str(free_port()), "GATEWAY_IMAGE": IMAGE, "PROXY_IMAGE": proxy_image()}
        cluster = Cluster(int(ours["GATEWAY_PORT"]), {**os.environ, **ours})
        cluster.run("down", "--volumes", check=False)
        scenario(cluster)
    except Failed as failure:
        print(f"FAILED {failure}", flush=True)
        if cluster is not None:
            print(cluster.run("logs", "--no-color", "--tail", "20", check=False))
        return 1
    finally:
        if cluster is not None:
            cluster.run("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)
        docker("image", "rm", "--force", IMAGE, check=False)
        shutil.rmtree(folder)
    print("deploy/cluster holds what it promises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
