"""From files, environment and command line to settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from app.config.loader import ConfigError, check_exposure, load_settings
from app.config.settings import Settings

Write = Callable[[str, str], Path]

_CFG = "Resources\n{\nMQServices\n{\nm\n{\nMQType = Stomp\nHost = h\nUser = u\nQueues\n{\nq { }\n}\n}\n}\n}\n"
_LOCAL = "Resources\n{\nMQServices\n{\nm\n{\nPassword = hunter2\n}\n}\n}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return _write


def _load(
    *files: Path, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> Settings:
    return load_settings(files, environ or {}, overrides).settings


def _problem(*files: Path, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(files, environ or {})
    return str(caught.value)


def test_without_anything_there_is_the_demo() -> None:
    settings = _load()
    demo = settings.services["demo"]
    assert (demo.mq_type, list(demo.queues), list(demo.topics)) == ("Memory", ["jobs"], ["events"])
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)


def test_the_environment_is_the_processs_own_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_GATEWAY_SERVER__PORT", "9123")
    assert load_settings([]).settings.server.port == 9123


def test_services_of_the_environment_replace_the_demo() -> None:
    assert list(_load(environ={"MQ_GATEWAY_SERVICES": '{"a": {"host": "h"}}'}).services) == ["a"]


def test_a_file_without_services_is_an_error_and_never_the_demo(write: Write) -> None:
    file = write("a.yaml", "server: {port: 1}\n")
    assert _problem(file) == f"{file}: services: no services are configured"
    assert list(_load(file, environ={"MQ_GATEWAY_SERVICES": '{"a": {"host": "h"}}'}).services) == ["a"]


def test_no_services_without_a_file() -> None:
    assert _problem(environ={"MQ_GATEWAY_SERVICES": "{}", "MQ_GATEWAY_AUTH__MODE": "password"}).startswith(
        "environment"
    )


def test_later_sources_win(write: Write) -> None:
    first = write("a.yaml", "server: {port: 1, heartbeat: 2, root_path: /a}\nservices: {a: {host: h, port: 5}}\n")
    second = write("b.toml", '[server]\nheartbeat = 3\nroot_path = "/b"\n[services.a]\nuser = "u"\n')
    environ = {"MQ_GATEWAY_SERVER__ROOT_PATH": "/c", "MQ_GATEWAY_SERVICES": '{"a": {"vhost": "v"}}'}
    settings = _load(first, second, environ=environ, overrides={"server": {"port": 4}})
    server, service = settings.server, settings.services["a"]
    assert (server.port, server.heartbeat, server.root_path) == (4, 3, "/c")
    assert (service.host, service.port, service.user, service.vhost) == ("h", 5, "u", "v")


def test_two_cfg_files_are_one_source(write: Write) -> None:
    service = _load(write("dirac.cfg", _CFG), write("local.cfg", _LOCAL)).services["m"]
    assert (service.user, list(service.queues)) == ("u", ["q"])
    assert service.password is not None
    assert service.password.get_secret_value() == "hunter2"


def test_yaml_may_refine_a_cfg_file(write: Write) -> None:
    refined = write("more.yml", "services: {m: {queues: {q: {prefetch: 3}}, required: true}}\n")
    service = _load(write("dirac.cfg", _CFG), refined).services["m"]
    assert service.required
    assert (service.queues["q"].prefetch, service.queues["q"].persistent) == (3, False)


def test_cfg_files_must_follow_each_other(write: Write) -> None:
    between = write("b.yaml", "server: {port: 1}\n")
    problem = _problem(write("a.cfg", _CFG), between, write("c.cfg", _LOCAL))
    assert problem.endswith("c.cfg: CFG files must follow each other")


def test_files_are_told_by_their_ending(write: Write) -> None:
    assert "the name must end in one of .yaml, .yml, .toml, .cfg" in _problem(write("a.json", "{}"))
    assert "cannot be read" in _problem(Path("none.yaml"))


def test_problems_name_file_and_line(write: Write) -> None:
    yaml = write("a.yaml", "services:\n  a:\n    host: h\n    prot: 1\n")
    cfg = write("a.cfg", _CFG.replace("User = u", "Port = many"))
    assert _problem(yaml) == f"{yaml}:4: services.a.prot: unknown option; did you mean port?"
    assert _problem(cfg) == f"{cfg}:9: services.m.port: must be a whole number, not 'many'"
    assert _problem(environ={"MQ_GATEWAY_SERVER__PROT": "1"}).startswith(
        "environment variable MQ_GATEWAY_SERVER__PROT: "
    )
    with pytest.raises(ConfigError, match=r"^command line: server\.port: must be less"):
        load_settings([], {}, {"server": {"port": 70000}})


def test_scalars_are_text_cast_by_their_setting(write: Write) -> None:
    file = write("a.yaml", "services: {a: {host: h, user: 007, password: 0123, topics: {no: {}, 010: }}}\n")
    service = _load(file).services["a"]
    assert (service.user, list(service.topics)) == ("007", ["no", "010"])
    assert service.password is not None
    assert service.password.get_secret_value() == "0123"


def test_passwords_come_from_files_beside_the_configuration_and_from_the_environment(write: Write) -> None:
    write("secret", "hunter2\n")
    file = write("a.yaml", "services: {a: {host: h, password_file: secret}, b: {host: h, password_env: P}}\n")
    services = _load(file, environ={"P": "hunter3"}).services
    found = [service.password.get_secret_value() for service in services.values() if service.password]
    assert found == ["hunter2", "hunter3"]


def test_a_later_file_may_give_the_password_in_another_way(write: Write) -> None:
    first = write("a.yaml", "services: {a: {host: h, password: guest}}\n")
    write("secret", "hunter2")
    service = _load(first, write("b.yaml", "services: {a: {password_file: secret}}\n")).services["a"]
    assert service.password is not None
    assert service.password.get_secret_value() == "hunter2"


def test_missing_certificates_are_errors_at_the_start(write: Write) -> None:
    file = write("a.yaml", "services: {a: {host: h, tls: {ca_file: none.pem}}}\n")
    assert "services.a.tls.ca_file: " in _problem(file)
    assert "none.pem is not a readable file" in _problem(file)


def test_warns_about_what_may_not_be_meant(write: Write) -> None:
    file = write("a.yaml", "services: {a: {host: h, password: x, tls: {verify: false}}, b: {host: h, password: x}}\n")
    warnings = load_settings([file], {}).warnings
    assert [warning.split(":")[0] for warning in warnings] == ["services.a.tls.verify", "services.b.user"]
    assert load_settings([], {}).warnings == ()


def test_the_open_door_is_refused_with_both_ways_out() -> None:
    settings = _load(overrides={"server": {"host": "0.0.0.0"}})
    with pytest.raises(ConfigError) as caught:
        check_exposure(settings)
    assert "server.host: 127.0.0.1" in str(caught.value)
    assert "auth.allow_anonymous: true" in str(caught.value)


@pytest.mark.parametrize("overrides", [{}, {"server": {"host": "0.0.0.0"}, "auth": {"allow_anonymous": True}}])
def test_a_closed_or_knowingly_open_door_is_fine(overrides: dict[str, object]) -> None:
    check_exposure(_load(overrides=overrides))
