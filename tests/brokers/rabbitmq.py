"""A private RabbitMQ node: own name, own epmd, own ports, own folders; touches no other node of the machine."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

from tests.brokers.broker import STOP_SECONDS, Broker
from tests.brokers.process import KeptProcess, accepts, wait_until
from tests.brokers.rabbit_controls import RabbitControls, in_json
from tests.brokers.tls import Authority

_SBIN = Path("/usr/lib/rabbitmq/bin")
# One scheduler that does not spin: the tests share few cores with the broker.
_ERL_ARGS = "-noinput +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
_CTL_SECONDS = 30
_NOT_YET = "requires the 'rabbit' app to be running"
_CALLS = count(1)


class RabbitMQ(RabbitControls, Broker):
    """RabbitMQ with the STOMP plugin, plain on `address` and with TLS on `tls_address`."""

    kind = "rabbitmq"
    package = "rabbitmq-server"

    def __init__(
        self,
        run: Path,
        folder: Path,
        ports: dict[str, int] | None = None,
        *,
        config: dict[str, str] | None = None,
        plugins: tuple[str, ...] = (),
    ) -> None:
        super().__init__(run, folder, ports)
        self._config = config or {}
        self._plugins = ("rabbitmq_stomp", *plugins)
        self._epmd: KeptProcess | None = None
        self.authority = Authority(run / "tls")

    @staticmethod
    def installed() -> bool:
        return (_SBIN / "rabbitmq-server").exists() and shutil.which("epmd") is not None

    @staticmethod
    def port_names() -> tuple[str, ...]:
        return ("stomp", "tls", "epmd", "dist")

    @property
    def tls_address(self) -> str:
        """`localhost:port` of the TLS listener: its certificate is for that name."""
        return f"localhost:{self.ports['tls']}"

    @property
    def node(self) -> str:
        return f"{self.folder.name}@localhost"

    def stop_blocking(self) -> None:
        super().stop_blocking()
        if self._epmd is not None:
            self._epmd.end(STOP_SECONDS)

    async def discard(self) -> None:
        await super().discard()
        if self._epmd is not None:
            await asyncio.to_thread(self._epmd.kill)

    async def ctl(self, *args: str) -> str:
        """Run rabbitmqctl (about a second) and return what it prints; raises RuntimeError with its output."""
        command = [str(_SBIN / "rabbitmqctl"), "--quiet", "--node", self.node, *args]
        async with asyncio.timeout(_CTL_SECONDS):
            while True:
                try:
                    return await asyncio.to_thread(self._run, command)
                except RuntimeError as error:
                    # The listeners accept a moment before the node calls itself running.
                    if _NOT_YET not in str(error):
                        raise

    async def eval(self, erlang: str) -> Any:
        """In some milliseconds: as another node, without rabbitmqctl."""
        code = f"base64:encode_to_string({in_json(erlang)}).\n"
        # A name of its own for each call: the node refuses a second connection from the same name.
        caller = f"t{os.getpid()}x{next(_CALLS)}"
        command = ["erl_call", "-n", self.node, "-h", caller, "-c", self._cookie(), "-e"]
        answer = await asyncio.to_thread(self._run, command, code)
        found = re.fullmatch(r'\{ok, "([A-Za-z0-9+/=]*)"\}', answer.strip())
        if not found:
            raise RuntimeError(answer)
        return json.loads(base64.b64decode(found[1]))

    async def add_vhost(self, name: str) -> None:
        """Add a virtual host; `guest` may do everything in it."""
        await self.ctl("add_vhost", name)
        await self.set_permissions("guest", vhost=name)

    async def add_user(self, name: str, password: str) -> None:
        """Add a user, who has no permissions yet."""
        await self.ctl("add_user", name, password)

    async def set_permissions(
        self, user: str, configure: str = ".*", write: str = ".*", read: str = ".*", *, vhost: str = "/"
    ) -> None:
        """Regular expressions of the names a user may configure, write and read."""
        await self.ctl("set_permissions", "--vhost", vhost, user, configure, write, read)

    def _prepare(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        server = self.authority.server()
        settings = {
            "listeners.tcp": "none",
            "stomp.listeners.tcp.1": f"{self.host}:{self.port}",
            "stomp.listeners.ssl.1": f"{self.host}:{self.ports['tls']}",
            "ssl_options.cacertfile": str(self.authority.ca_file),
            "ssl_options.certfile": str(server.cert_file),
            "ssl_options.keyfile": str(server.key_file),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "false",
            "disk_free_limit.absolute": "1MB",
            "log.file.level": "info",
            **self._config,
        }
        (self.folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        (self.folder / "plugins").write_text(f"[{','.join(self._plugins)}].\n")

    def _launch(self) -> KeptProcess:
        if self._epmd is None or not self._epmd.running:
            self._epmd = self._keep("epmd", ["epmd", "-address", self.host, "-port", str(self.ports["epmd"])])
            wait_until(lambda: accepts(self.ports["epmd"]), 10, "epmd did not start")
        return self._keep("node", [str(_SBIN / "rabbitmq-server")])

    def _ready(self) -> bool:
        # The TLS listener comes up after the plain one.
        return accepts(self.port) and accepts(self.ports["tls"])

    def _keep(self, name: str, command: list[str]) -> KeptProcess:
        log = self.folder / f"{name}.out"
        return KeptProcess(command, run=self.run, log=log, env=self._env(), cwd=self.folder)

    def _env(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": folder,
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
            "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.ports["dist"]),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # The start script then becomes the node instead of waiting beside it: its pid takes the signals.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERL_ARGS,
        }

    def _cookie(self) -> str:
        return (self.folder / ".erlang.cookie").read_text()

    def _run(self, command: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self._env(),
            cwd=self.folder,
            timeout=_CTL_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout
