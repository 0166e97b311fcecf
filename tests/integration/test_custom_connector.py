"""The example of docs/how-to/custom-connector.md: installed as a user would, used over HTTP's own calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs/examples/custom_connector"

_PROGRAM = """
import asyncio, json, sys
from app.config.loader import load_settings
from app.domain.errors import NotSupportedByBroker
from app.gateway.gateway import Gateway
from pathlib import Path

async def main():
    async with Gateway(load_settings([Path(sys.argv[1])]).settings) as gateway:
        producer = await gateway.create_producer("batch::Queues::jobs")
        published = await producer.put_json({"JobID": 1})
        try:
            await gateway.create_consumer("batch::Queues::jobs")
        except NotSupportedByBroker as error:
            print(json.dumps([published.message_id, gateway.service("batch").link, str(error)]))

asyncio.run(main())
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The example in a folder of its own, so that this environment stays as it is."""
    target = tmp_path / "site-packages"
    copy = tmp_path / "custom_connector"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True, timeout=10)  # a build leaves files behind
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(copy)], check=True, timeout=100)
    return target


def test_a_connector_of_ones_own(installed: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"services: {{batch: {{mq_type: Spool, options: {{folder: {spool}}}, queues: {{jobs: {{}}}}}}}}\n"
    )
    root = str(Path(__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(config)],
        env={"PYTHONPATH": f"{installed}:{root}"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    message_id, link, refusal = json.loads(answer.stdout)
    assert link == "up"
    assert "batch system" in refusal
    assert json.loads((spool / "jobs" / message_id).read_bytes()) == {"JobID": 1}
