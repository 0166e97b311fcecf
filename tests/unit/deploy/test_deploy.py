"""Dockerfile, compose file and what they mount fit each other and the application. No engine is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config.loader import check_exposure, load_settings
from app.config.settings import Settings
from app.server import LIFESPAN_SECONDS, TASK_SECONDS

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "deploy" / "compose" / "gateway.yaml"


@pytest.fixture(name="services")
def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return services


@pytest.fixture(name="settings")
def _settings(tmp_path: Path) -> Settings:
    """The mounted configuration, its secret found elsewhere than in a container."""
    secret = tmp_path / "password"
    secret.write_text("from the secret\n", encoding="utf-8")
    here = tmp_path / CONFIG.name
    text = CONFIG.read_text(encoding="utf-8")
    assert "/run/secrets/mq_password" in text
    here.write_text(text.replace("/run/secrets/mq_password", str(secret)), encoding="utf-8")
    loaded = load_settings([here], environ={})
    assert loaded.warnings == ()
    return loaded.settings


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_the_mounted_configuration_is_valid_and_may_serve_everybody(settings: Settings) -> None:
    check_exposure(settings)
    password = settings.services["rabbitmq"].password
    assert password is not None
    assert password.get_secret_value() == "from the secret"


def test_configuration_and_compose_file_mean_the_same(settings: Settings, services: dict[str, Any]) -> None:
    gateway, broker = services["gateway"], services["rabbitmq"]
    service = settings.services["rabbitmq"]
    assert service.addresses() == [("rabbitmq", 61613)]
    assert service.user == broker["environment"]["RABBITMQ_DEFAULT_USER"]
    assert gateway["ports"] == [f"127.0.0.1:${{GATEWAY_PORT:-8080}}:{settings.server.port}"]
    assert settings.server.allowed_hosts == ["gateway"]
    assert f"./{CONFIG.relative_to(ROOT)}:{gateway['command'][-1]}:ro" in gateway["volumes"]


def test_only_the_gateway_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]


def test_the_engine_waits_for_the_whole_drain(settings: Settings, services: dict[str, Any]) -> None:
    drain = settings.server.drain_delay + settings.server.drain_seconds
    assert _seconds(services["gateway"]["stop_grace_period"]) > drain + LIFESPAN_SECONDS + 2 * TASK_SECONDS


def test_everything_that_is_mounted_exists(services: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in services.values() for mount in service["volumes"]]
    files = [ROOT / mount for mount in mounts if mount.startswith("./")]
    assert len(files) == 3
    assert [path for path in files if not path.is_file()] == []


def test_the_image_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={project['version']}\n" in _dockerfile()


def test_everything_the_image_copies_reaches_the_engine() -> None:
    copied = {
        name
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _dockerfile(), re.MULTILINE)
        for name in sources.split()
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


def test_without_an_engine_the_trial_says_so_and_exits_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "test_compose.py")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == "SKIPPED: no docker engine with compose here (there is no docker command)\n"
