"""A RabbitMQ in a container of its own, with the configuration that the project deploys, on a loopback port."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.brokers.process import LOOPBACK, KeptProcess, free_port
from tests.brokers.rabbit_controls import RabbitControls, in_json
from tests.stomp_client import StompClient, StompError

_DEPLOY = Path(__file__).parents[2] / "deploy" / "rabbitmq"
_STOMP_PORT = 61613
_START_SECONDS = 90.0
_COMMAND_SECONDS = 60.0
# As for the private nodes: one scheduler that does not spin, and less of the processor than everybody else.
_ERL_ARGS = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
_CPU_SHARES = "256"
# Removes the container when the run is over, however it ended (see keeper.py).
_UNDERTAKER = "trap 'exit 0' TERM; trap 'docker rm --force --volumes {}' EXIT; while :; do sleep 3600 & wait $!; done"


class DockerRabbitMQ(RabbitControls):
    """The container keeps its data when it is stopped or killed; it is removed at the end of the run."""

    host = LOOPBACK
    user = "mq-gateway"

    def __init__(self, run: Path, folder: Path, image: str) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        self._run = run
        self._folder = folder
        self._image = image
        self._name = f"{run.name}-{folder.name}"
        self._undertaker: KeptProcess | None = None

    @staticmethod
    def missing(image: str) -> str:
        """Why it cannot run here; empty where it can."""
        if shutil.which("docker") is None:
            return "there is no docker command"
        try:
            _docker("image", "inspect", image)
        except RuntimeError as error:
            return str(error)
        return ""

    @property
    def address(self) -> str:
        """`host:port` of the published STOMP listener."""
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Make or start the container, and return when it takes a STOMP login."""
        if self._undertaker is None:
            await asyncio.to_thread(self._make)
        await self._do("start")
        await self._ready()

    async def stop(self) -> None:
        """Shut down in order."""
        await self._do("stop", "--time", "30")

    async def kill(self) -> None:
        """SIGKILL for all of it, also where it is frozen: it dies before it can go on."""
        await self._do("kill")

    async def pause(self) -> None:
        """Freeze it: connections stay open, nothing is read or answered."""
        await self._do("pause")

    async def resume(self) -> None:
        await self._do("unpause")

    async def discard(self) -> None:
        """Remove it with its data."""
        if self._undertaker is not None:
            await asyncio.to_thread(self._undertaker.end, _COMMAND_SECONDS)

    async def eval(self, erlang: str) -> Any:
        """In a second or so, by rabbitmqctl."""
        code = f"base64:encode(iolist_to_binary({in_json(erlang)}))."
        answer = await asyncio.to_thread(
            _docker, "exec", self._name, "gosu", "rabbitmq", "rabbitmqctl", "--quiet", "eval", code
        )
        found = re.fullmatch(r'<<"([A-Za-z0-9+/=]*)">>', "".join(answer.split()))
        if not found:
            raise RuntimeError(answer)
        return json.loads(base64.b64decode(found[1]))

    async def _do(self, verb: str, *options: str) -> None:
        await asyncio.to_thread(_docker, verb, *options, self._name)

    def _make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._undertaker = KeptProcess(
            ["sh", "-c", _UNDERTAKER.format(self._name)],
            run=self._run,
            log=self._folder / "undertaker.out",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
            cwd=self._folder,
        )
        _docker("create", *self._options(), self._image)

    def _options(self) -> list[str]:
        environment = {
            "RABBITMQ_DEFAULT_USER": self.user,
            "RABBITMQ_DEFAULT_PASS": self.password,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERL_ARGS,
            # Erlang makes room for as many descriptors as it may open, and some engines allow a thousand million.
            "ERL_MAX_PORTS": "65536",
        }
        return [
            *("--name", self._name),
            # The node's name is made of it, and the data belong to the node's name.
            *("--hostname", "rabbitmq"),
            *("--publish", f"{self.host}:{self.port}:{_STOMP_PORT}"),
            *("--cpu-shares", _CPU_SHARES),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(f"--volume={_DEPLOY / name}:/etc/rabbitmq/{name}:ro" for name in ("enabled_plugins", "rabbitmq.conf")),
        ]

    async def _ready(self) -> None:
        # The engine's proxy accepts connections before anybody listens in the container: only a login tells.
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                client = await StompClient.connect(self.address, user=self.user, password=self.password, timeout=5)
            except (OSError, StompError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
                continue
            await client.close()
            return


def _docker(*args: str) -> str:
    """`docker ARGS`: its standard output; raises RuntimeError with its standard error."""
    done = subprocess.run(
        ["docker", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args[:2])}: {done.stderr.strip()}")
    return done.stdout
