"""The files of deploy/cluster fit each other and the application. No engine is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config.loader import check_exposure, load_settings
from app.config.settings import Settings
from app.gateway.peer_channel import PATH
from app.server import LIFESPAN_SECONDS, TASK_SECONDS

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "deploy" / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
REPLICAS = ("gateway-1", "gateway-2")
NODES = ("mq1", "mq2", "mq3")


def loaded(config: Path, folder: Path, **environ: str) -> Settings:
    """A configuration as it is mounted, with its secrets elsewhere than in a container."""
    secret = folder / "secret"
    secret.write_text("of at least 16 bytes\n", encoding="utf-8")
    text = config.read_text(encoding="utf-8")
    mounted = [line.split()[-1] for line in text.splitlines() if "password_file" in line or "secret_file" in line]
    assert len(mounted) == 2
    for path in mounted:
        text = text.replace(path, str(secret))
    here = folder / config.name
    here.write_text(text, encoding="utf-8")
    found = load_settings([here], environ=environ)
    assert found.warnings == ()
    check_exposure(found.settings)
    return found.settings


@pytest.fixture(name="services")
def _services() -> dict[str, Any]:
    text = (CLUSTER / "docker-compose.yml").read_text(encoding="utf-8")
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def kubernetes(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / name).read_text(encoding="utf-8"))
    return found


def drain(settings: Settings) -> float:
    """Seconds from SIGTERM to the end, at most."""
    return settings.server.drain_delay + settings.server.drain_seconds + LIFESPAN_SECONDS + 2 * TASK_SECONDS


@pytest.mark.parametrize("replica", REPLICAS)
def test_every_replica_knows_all_nodes_and_drains_in_time(
    services: dict[str, Any], replica: str, tmp_path: Path
) -> None:
    service = services[replica]
    settings = loaded(CLUSTER / "gateway.yaml", tmp_path, **service.get("environment", {}))
    assert {name for name, _ in settings.services["mq"].addresses()} == set(NODES)
    assert settings.services["mq"].user == services["mq1"]["environment"]["RABBITMQ_DEFAULT_USER"]
    assert float(service["stop_grace_period"].removesuffix("s")) > drain(settings)


def test_the_replicas_know_each_other_and_only_they_are_peers(services: dict[str, Any], tmp_path: Path) -> None:
    settings = loaded(CLUSTER / "gateway.yaml", tmp_path)
    assert settings.server.peer_addresses() == [(name, settings.server.port) for name in REPLICAS]
    assert all("gateway_secret" in services[name]["secrets"] for name in REPLICAS)
    assert f"if {{ path_beg {PATH.rpartition('/')[0]}/ }}" in (CLUSTER / "haproxy.cfg").read_text(encoding="utf-8")


def test_the_replicas_begin_at_different_nodes(services: dict[str, Any], tmp_path: Path) -> None:
    first = {
        loaded(CLUSTER / "gateway.yaml", tmp_path, **services[name].get("environment", {}))
        .services["mq"]
        .addresses()[0]
        for name in REPLICAS
    }
    assert len(first) == 2


def test_the_nodes_know_each_other(services: dict[str, Any]) -> None:
    text = (CLUSTER / "rabbitmq-cluster.conf").read_text(encoding="utf-8")
    for node in NODES:
        assert services[node]["hostname"] == node
        assert f"= rabbit@{node}\n" in text


def test_the_proxy_knows_the_replicas_and_is_patient_enough(tmp_path: Path) -> None:
    lines = (CLUSTER / "haproxy.cfg").read_text(encoding="utf-8").splitlines()
    said = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in lines if line.strip()}
    settings = loaded(CLUSTER / "gateway.yaml", tmp_path)
    for replica in REPLICAS:
        assert said[f"server {replica}"] == f"{replica}:{settings.server.port}"
    client, server = (float(said[f"timeout {side}"].removesuffix("s")) for side in ("client", "server"))
    assert client > 2 * settings.server.heartbeat
    assert server > settings.limits.publish_timeout_max
    assert said["retry-on"] == "conn-failure"


def test_only_the_proxy_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]


def test_everything_that_is_mounted_exists(services: dict[str, Any]) -> None:
    mounts = {mount.split(":")[0] for service in services.values() for mount in service["volumes"]}
    files = [CLUSTER / mount for mount in mounts if mount.startswith(".")]
    assert len(files) == 5
    assert [path for path in files if not path.is_file()] == []


def test_on_kubernetes_there_is_time_for_the_drain_and_the_probes_are_answered(tmp_path: Path) -> None:
    pod = kubernetes("deployment.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    (environ,) = [each["value"] for each in container["env"] if each["name"] == "MQ_GATEWAY_SERVICES"]
    settings = loaded(KUBERNETES / "gateway.yaml", tmp_path, MQ_GATEWAY_SERVICES=environ)
    assert pod["terminationGracePeriodSeconds"] == 45 > drain(settings)
    assert settings.server.drain_delay > container["readinessProbe"]["periodSeconds"]
    for probe, path in (("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["httpHeaders"]) == (path, [{"name": "Host", "value": "localhost"}])
    assert settings.services["mq"].user == "$(MQ_USER)"
    assert json.loads(environ) == {"mq": {"user": "$(MQ_USER)"}}


def test_on_kubernetes_the_manifests_belong_together() -> None:
    kustomization = kubernetes("kustomization.yaml")
    named = {*kustomization["resources"], *kustomization["configMapGenerator"][0]["files"], "kustomization.yaml"}
    assert named == {path.name for path in KUBERNETES.iterdir()}
    labels = kubernetes("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    clients, peers = yaml.safe_load_all((KUBERNETES / "service.yaml").read_text(encoding="utf-8"))
    assert clients["spec"]["selector"] == peers["spec"]["selector"] == labels
    assert kubernetes("disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    secrets = {volume.get("secret", {}).get("secretName") for volume in _volumes()} - {None}
    assert secrets == {f"{kubernetes('rabbitmq.yaml')['metadata']['name']}-default-user", "mq-gateway"}


def test_on_kubernetes_the_name_of_the_peers_has_the_addresses_of_all_pods(tmp_path: Path) -> None:
    _, service = yaml.safe_load_all((KUBERNETES / "service.yaml").read_text(encoding="utf-8"))
    (port,) = service["spec"]["ports"]
    settings = loaded(KUBERNETES / "gateway.yaml", tmp_path, MQ_GATEWAY_SERVICES='{"mq": {"user": "u"}}')
    assert settings.server.peer_addresses() == [(service["metadata"]["name"], port["port"])]
    assert port["port"] == settings.server.port
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def _volumes() -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = kubernetes("deployment.yaml")["spec"]["template"]["spec"]["volumes"]
    return volumes
