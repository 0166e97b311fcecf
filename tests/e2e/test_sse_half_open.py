"""A peer that is gone without a word: its stream and its socket are given up in bounded time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.e2e import half_open
from tests.e2e.http_gateway import PATIENCE
from tests.tools import not_allowed, not_run

ROOT = Path(__file__).parents[2]
#: A network of its own, also for somebody who is not root.
NAMESPACE = ("unshare", "--map-root-user", "--net")


@cache
def _allowed() -> bool:
    command = [*NAMESPACE, "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0


@pytest.mark.parametrize("traffic", ["idle", "busy"])
def test_sse_case_42_a_half_open_peer_is_given_up_after_heartbeat_and_user_timeout(traffic: str) -> None:
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            not_run(package)
    if not _allowed():
        not_allowed("the right to make a network namespace")
    command = [*NAMESPACE, sys.executable, "-m", "tests.e2e.half_open", traffic]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seconds"] >= half_open.USER_TIMEOUT
    # The kernel looks at its retransmission timer, which backs off: a second is the most it is late by.
    assert found["seconds"] <= half_open.HEARTBEAT + half_open.USER_TIMEOUT + 1.5
    assert (found["closed"], found["readers"]) == (1, 1)
    # Nobody else noticed.
    assert found["seen"] == [str(number) for number in range(len(found["seen"]))]
    assert (len(found["seen"]) >= 5) == (traffic == "busy")
