"""`python -m app` is `mq-gateway`."""

from __future__ import annotations

import subprocess
import sys

from app.telemetry.metrics import gateway_version


def test_is_the_command() -> None:
    arguments = [sys.executable, "-m", "app", "--version"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mq-gateway {gateway_version()}\n", "")
