"""A real nginx before a gateway, on loopback, with the places a test gives."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.brokers.process import accepts, free_port, wait_until
from tests.brokers.tls import Certificate
from tests.e2e.http_client import PATIENCE
from tests.tools import not_run

PROGRAM = Path("/usr/sbin/nginx")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """One server for each name in `servers`: directives of its `location /`; `port[name]` is where it listens."""

    def __init__(self, folder: Path, upstream: int, servers: dict[str, str], certificate: Certificate) -> None:
        self.port = {name: free_port() for name in servers}
        self._upstream = upstream
        self._certificate = certificate
        self._config = folder / "nginx.conf"
        self._config.write_text(self._text(folder, servers))
        self.log = folder / "nginx.log"

    def _text(self, folder: Path, servers: dict[str, str]) -> str:
        places = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
        listed = "".join(self._server(name, directives) for name, directives in servers.items())
        # One process in the foreground, ours to end.
        main = f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        return f"{main}http {{\naccess_log off;\n{places}{listed}}}\n"

    def _server(self, name: str, directives: str) -> str:
        listen = f"listen 127.0.0.1:{self.port[name]}"
        if name.startswith("h2"):
            issued = self._certificate
            listen += f" ssl http2; ssl_certificate {issued.cert_file}; ssl_certificate_key {issued.key_file}"
        return f"server {{ {listen}; location / {{ proxy_pass http://127.0.0.1:{self._upstream}; {directives} }} }}\n"

    @contextlib.contextmanager
    def running(self) -> Iterator[Nginx]:
        if not PROGRAM.exists():
            not_run("nginx")
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [str(PROGRAM), "-e", "stderr", "-p", str(self._config.parent), "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(
                lambda: process.poll() is not None or all(map(accepts, self.port.values())), PATIENCE, "no nginx"
            )
            assert process.poll() is None, self.log.read_text()
            yield self
        finally:
            process.kill()
            process.wait()
