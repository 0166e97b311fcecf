"""The gateway against its own OpenAPI document: Schemathesis asks everything the document allows, and what it does not.

Schemathesis runs as a process of its own. An event stream, which has no end, is read for a fraction of a second and
then checked event by event (conformance/schemathesis.toml and hooks.py). MQ_CONFORMANCE_EXAMPLES makes a longer run,
MQ_CONFORMANCE_SEED another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.auth.token_change import change_tokens
from app.auth.token_file import TokenEntry, hash_of, new_token
from tests.brokers.process import free_port
from tests.e2e.http_client import Sse
from tests.e2e.live_gateway import ROOT, LiveGateway, running, write_config

#: Cases for each operation and phase.
EXAMPLES = int(os.environ.get("MQ_CONFORMANCE_EXAMPLES", "12"))
SEED = os.environ.get("MQ_CONFORMANCE_SEED", "1")
OPERATIONS = 21
#: Seconds for one run, ten times what it takes on cores of its own.
DEADLINE = 150 + 10 * EXAMPLES
_CONFIG = Path(__file__).parent / "conformance" / "schemathesis.toml"

pytestmark = pytest.mark.timeout(DEADLINE + 30)


#: Nobody is asked who they are: that nothing is refused for it is no failure here.
OPEN = "ignored_auth,missing_required_header"
#: What one call leads to is nothing that depends on the caller.
PHASES = ("--phases", "examples,coverage,fuzzing")
EVERYTHING = {"allow": ["publish", "subscribe", "take", "look", "admin"], "uris": ["*"]}
#: Of the things there are about half.
HALF = {"allow": ["publish", "take", "look"], "uris": ["demo::Queues::*", "down::Queues::*"]}


@dataclass(frozen=True)
class Asking:
    """Mode token, with one token and what it may."""

    folder: Path
    token: str

    @property
    def header(self) -> str:
        return f"Authorization: Bearer {self.token}"

    def auth(self, *rules: dict[str, Any]) -> dict[str, Any]:
        """The section of the configuration."""
        path = self.folder / "tokens.json"
        change_tokens(path, lambda _before: [TokenEntry(name="alice", principal="alice", hash=hash_of(self.token))])
        return {
            "mode": "token",
            "tokens_file": str(path),
            "policy": [{"principals": ["alice"], **rule} for rule in rules],
        }


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path, new_token())


@contextlib.asynccontextmanager
async def _serving_those_who_may(asking: Asking, *rules: dict[str, Any]) -> AsyncIterator[LiveGateway]:
    config = write_config(asking.folder, _services(), auth=asking.auth(*rules))
    async with running(config) as gateway:
        gateway.headers = {"Authorization": f"Bearer {asking.token}"}
        await gateway.until_link("down", _is_down)
        yield gateway


def _is_down(view: dict[str, Any]) -> bool:
    return view["link"] == "down" and view["last_error"] is not None


def _services() -> dict[str, Any]:
    return {
        "demo": {"mq_type": "Memory", "queues": {"jobs": {}, "a/b": {}}, "topics": {"events": {}}},
        # Nobody listens there: what is answered without a broker is described too.
        "down": {"mq_type": "Stomp", "host": "127.0.0.1", "port": free_port(), "queues": {"jobs": {}}},
    }


@contextlib.asynccontextmanager
async def _serving(folder: Path, **limits: int) -> AsyncIterator[LiveGateway]:
    async with running(write_config(folder, _services(), limits=limits)) as gateway:
        await gateway.until_link("down", _is_down)
        yield gateway


async def _ask(gateway: LiveGateway, folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Exit code and report of a run; raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG)),
        *("run", f"http://127.0.0.1:{gateway.port}/openapi.json", "--checks", "all", "--continue-on-failure"),
        *("--max-examples", str(EXAMPLES), "--seed", SEED, "--no-color", *options),
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, report.decode(errors="replace")


async def test_everything_it_answers_is_described(tmp_path: Path) -> None:
    async with _serving(tmp_path) as gateway:
        code, report = await _ask(gateway, tmp_path, "--exclude-checks", OPEN)
    assert code == 0, report
    # What found no operation, or nothing to do in a phase, would be in order as well.
    assert f"Tested: {OPERATIONS}" in report
    assert all(f"✅ {phase}" in " ".join(report.split()) for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"))


async def test_so_is_what_it_refuses_when_it_is_full(tmp_path: Path) -> None:
    async with _serving(tmp_path, body_bytes=8, max_headers=1, header_bytes=64, streams=1) as gateway:
        async with await Sse.open(gateway.port, "/mq/demo/Topics/events/events"):
            code, report = await _ask(
                *(gateway, tmp_path, "--include-operation-id", "publish", "--include-operation-id", "subscribe"),
                *("--phases", "coverage,fuzzing", "--exclude-checks", f"positive_data_acceptance,{OPEN}"),
            )
        refused = await gateway.metric("mq_gateway_streams_refused_total", reason="too_many_streams")
    assert code == 0, report
    assert "Tested: 2" in report
    assert refused > 0


async def test_so_is_what_it_answers_those_it_knows(asking: Asking) -> None:
    async with _serving_those_who_may(asking, EVERYTHING) as gateway:
        code, report = await _ask(gateway, asking.folder, *PHASES, "--header", asking.header)
        forbidden = await gateway.metric("mq_gateway_auth_failures_total", reason="forbidden")
        published = await gateway.metric("mq_gateway_publishes_total", service="demo", outcome="confirmed")
    assert code == 0, report
    assert f"Tested: {OPERATIONS}" in report
    assert (forbidden, published > 0) == (0, True)


async def test_those_it_does_not_know_get_nothing(asking: Asking) -> None:
    """hooks.py has a check for that; Schemathesis has one that leaves out what a path is wrong of."""
    async with _serving_those_who_may(asking, EVERYTHING) as gateway:
        code, report = await _ask(gateway, asking.folder, *PHASES, MQ_CONFORMANCE_UNKNOWN="yes")
        refused = [await gateway.metric("mq_gateway_auth_failures_total", reason=why) for why in ("missing", "unknown")]
        published = await gateway.metric("mq_gateway_publishes_total", outcome="confirmed")
    assert code == 0, report
    assert f"Tested: {OPERATIONS}" in report
    assert all(count > 0 for count in refused)
    assert published == 0


async def test_those_who_may_half_of_it_get_the_half(asking: Asking) -> None:
    async with _serving_those_who_may(asking, HALF) as gateway:
        code, report = await _ask(gateway, asking.folder, *PHASES, "--header", asking.header)
        forbidden = await gateway.metric("mq_gateway_auth_failures_total", reason="forbidden")
        published = await gateway.metric("mq_gateway_publishes_total", service="demo", outcome="confirmed")
    assert code == 0, report
    assert f"Tested: {OPERATIONS}" in report
    assert (forbidden > 0, published > 0) == (True, True)
