"""Settings of one mqService."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from app.config.address import parse_address
from app.config.destination import QueueSettings, TopicSettings
from app.config.service import ServiceSettings, TlsSettings
from app.domain.uri import MqUri


def _service(**options: Any) -> ServiceSettings:
    return ServiceSettings.model_validate({"host": "broker", **options})


def _secret(service: ServiceSettings) -> str | None:
    return service.password.get_secret_value() if service.password else None


def test_defaults_of_the_contract() -> None:
    service = _service()
    assert (service.mq_type, service.port, service.vhost, service.connect_timeout) == ("Stomp", 61613, "/", 10)
    assert service.heartbeat_ms == (10_000, 10_000)
    back_off = service.reconnect
    assert (back_off.initial, back_off.increase, back_off.max, back_off.jitter) == (1, 0.5, 15, 0.1)
    assert service.tls is None
    assert not service.required
    assert not service.allow_undeclared


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a.b", ("a.b", 61613)),
        ("a:5", ("a", 5)),
        ("[::1]", ("::1", 61613)),
        ("[fe80::1%eth0]:7", ("fe80::1%eth0", 7)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 61613) == address


@pytest.mark.parametrize("text", ["", "::1", "a:0", "a:65536", "a:b", "a b", "[::1]x", "http://a", "a:"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|is not"):
        parse_address(text, 1)


def test_host_and_hosts() -> None:
    assert _service(port=7).addresses() == [("broker", 7)]
    assert _service(host="[::1]").addresses() == [("::1", 61613)]
    assert _service(host=None, hosts=["a:1", "b"], port=7).addresses() == [("a", 1), ("b", 7)]
    for wrong in ({"hosts": ["a"]}, {"host": None}, {"host": None, "hosts": ["a:b"]}):
        with pytest.raises(ValidationError, match="host"):
            _service(**wrong)


def test_only_stomp_needs_a_host_and_only_own_connectors_take_options() -> None:
    assert ServiceSettings(mq_type="Memory").addresses() == []
    assert ServiceSettings(mq_type="Mine", options={"a": "b"}).options == {"a": "b"}
    with pytest.raises(ValidationError, match="options"):
        ServiceSettings(mq_type="Memory", options={"a": "b"})


def test_the_password_comes_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\r\n", encoding="utf-8")
    monkeypatch.setenv("BROKER_PASSWORD", "s3cret")
    assert _secret(_service()) is None
    assert _secret(_service(password="0123")) == "0123"
    assert _secret(_service(password_file=str(file))) == "s3cret"
    assert _secret(_service(password_env="BROKER_PASSWORD")) == "s3cret"
    context = {"environ": {"BROKER_PASSWORD": "other"}}
    given = ServiceSettings.model_validate({"host": "h", "password_env": "BROKER_PASSWORD"}, context=context)
    assert _secret(given) == "other"


def test_only_the_last_line_end_of_a_password_file_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" a b \n\n")
    assert _secret(_service(password_file=str(file))) == " a b \n"


def test_a_password_that_cannot_be_had_is_an_error_without_the_password(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for wrong, reason in (
        ({"password_file": str(tmp_path / "none")}, "No such file"),
        ({"password_file": str(binary)}, "not UTF-8"),
        ({"password_env": "NOT_SET_ANYWHERE"}, "is not set"),
        ({"password_env": "hunter2!"}, "the variable of this name is not set"),
        ({"password": "hunter2", "password_env": "X"}, "only one of"),
    ):
        with pytest.raises(ValidationError, match=reason) as caught:
            _service(**wrong)
        assert "hunter2" not in str(caught.value)


def test_secrets_are_not_in_the_representation() -> None:
    service = ServiceSettings(mq_type="Mine", password=SecretStr("hunter2"), options={"api_key": "hunter2"})
    assert "hunter2" not in f"{service!r} {service}"


@pytest.mark.parametrize(
    ("given", "on"), [(True, True), ("true", True), ("false", False), (False, False), (None, False)]
)
def test_tls_may_be_a_switch(given: object, *, on: bool) -> None:
    assert _service(tls=given).tls == (TlsSettings() if on else None)


def test_tls_as_a_section(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.touch()
    tls = _service(tls={"ca_file": str(file), "cert_file": str(file), "server_name": "x"}).tls
    assert tls is not None
    assert (tls.ca_file, tls.cert_file, tls.key_file, tls.verify, tls.server_name) == (file, file, None, True, "x")
    for wrong in ({"key_file": str(file)}, {"ca_file": str(tmp_path / "none")}, "perhaps", 3):
        with pytest.raises(ValidationError):
            _service(tls=wrong)


def test_names_of_destinations_are_plain() -> None:
    service = _service(queues={"no": None, "a.b/c": {}}, topics=None)
    assert list(service.queues) == ["no", "a.b/c"]
    with pytest.raises(ValidationError, match="may take for more than a name"):
        _service(topics={"a.*": None})


def test_looks_up_declared_destinations_exactly() -> None:
    service = _service(queues={"jobs": {"prefetch": 3}}, topics={"jobs": {"slow": "latest"}})
    queue = service.destination(MqUri.parse("any::Queues::jobs"))
    topic = service.destination(MqUri.parse("any::Topics::jobs"))
    assert queue == QueueSettings(prefetch=3)
    assert topic == TopicSettings(slow="latest")
    assert service.destination(MqUri.parse("any::Queues::Jobs")) is None
    assert service.destination(MqUri.parse("any::Topics::job")) is None


def test_undeclared_destinations_exist_where_allowed() -> None:
    service = _service(allow_undeclared=True, queues={"jobs": {"prefetch": 3}})
    assert service.destination(MqUri.parse("any::Queues::jobs")) == QueueSettings(prefetch=3)
    assert service.destination(MqUri.parse("any::Queues::other")) == QueueSettings()
    assert service.destination(MqUri.parse("any::Topics::other")) == TopicSettings()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"topics": {"log": {"replay": "stream"}}}, "`replay: stream` of log: offsets are of one broker"),
        ({"mq_type": "Memory"}, "Memory has none"),
    ],
)
def test_consuming_from_all_is_for_brokers_with_addresses_and_no_streams(
    options: dict[str, object], reason: str
) -> None:
    assert _service(consume_from="all", topics={"log": None}).consume_from == "all"
    with pytest.raises(ValidationError, match=reason):
        _service(consume_from="all", **options)


@pytest.mark.parametrize(
    "option", [{"port": 0}, {"port": 65536}, {"heartbeat_ms": [1]}, {"connect_timeout": 0}, {"vhost": ""}]
)
def test_senseless_values_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _service(**option)


def test_is_no_section_but_a_word() -> None:
    with pytest.raises(ValidationError):
        ServiceSettings.model_validate("broker")


def test_a_subscription_and_its_topic_have_one_name_at_the_broker() -> None:
    _service(topics={"t" * 250: {"subscriptions": ["abc"]}})
    with pytest.raises(ValidationError, match="too long"):
        _service(topics={"t" * 250: {"subscriptions": ["abcd"]}})
    _service(topics={"t" * 240: {"subscriptions": ["abc"], "destination": "/topic/t"}})
    with pytest.raises(ValidationError, match="too long"):
        _service(topics={"t" * 240: {"subscriptions": ["abcd"], "destination": "/topic/t"}})
