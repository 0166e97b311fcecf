"""The JDK's HttpClient, unmodified. The same bytes without a JDK are in tests/unit/http1/test_protocol.py."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.e2e.serving import serving
from tests.tools import not_run

SOURCE = Path(__file__).parent / "java" / "Publish.java"


def test_bodies_of_the_jdk_client_arrive_whole() -> None:
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        not_run("openjdk-17-jdk-headless")
    with serving() as served:
        done = subprocess.run(
            [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", str(SOURCE), f"http://127.0.0.1:{served.port}/echo"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[-1] == "done"
        assert len(lines) == 8 + 50 + 1
        assert {seen.path for seen in served.app.seen} == {"/echo"}
        assert len(served.app.seen) == 58
        assert all(seen.complete for seen in served.app.seen)
