"""Settings of the HTTP server."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config.server import ServerSettings


def test_defaults_of_the_contract() -> None:
    server = ServerSettings()
    assert (server.host, server.port, server.root_path) == ("127.0.0.1", 8080, "")
    assert (server.drain_delay, server.drain_seconds, server.write_timeout) == (0, 20, 10)
    assert (server.header_timeout, server.idle_timeout, server.heartbeat) == (10, 75, 15)
    assert (server.log_format, server.log_level) == ("console", "info")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("gateway.example", False),
    ],
)
def test_knows_what_is_loopback(host: str, *, loopback: bool) -> None:
    assert ServerSettings(host=host).is_loopback is loopback


def test_lists_are_checked_and_in_lower_case() -> None:
    server = ServerSettings(
        allowed_hosts=["Gateway.example", "[::1]"],
        allowed_origins=["https://Dash.example", "http://localhost:3000"],
        trusted_proxies=["10.0.0.0/8", "::1"],
        root_path="/gateway",
    )
    assert server.allowed_hosts == ["gateway.example", "[::1]"]
    assert server.allowed_origins == ["https://dash.example", "http://localhost:3000"]


@pytest.mark.parametrize(
    "option",
    [
        {"allowed_origins": "*"},
        {"allowed_origins": "https://dash.example/"},
        {"allowed_origins": "null"},
        {"allowed_hosts": "a:80"},
        {"allowed_hosts": "*"},
        {"trusted_proxies": "proxy"},
        {"root_path": "gateway"},
        {"root_path": "/"},
        {"port": 65536},
        {"drain_seconds": 0},
        {"log_level": "trace"},
    ],
)
def test_senseless_values_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate(option)


def test_later_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="not supported in this version"):
        ServerSettings.model_validate({"state_file": "a"})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """That there is a certificate in it is not for this floor to know."""
    (tmp_path / "a.pem").write_text("x")
    return {"cert_file": str(tmp_path / "a.pem"), "key_file": str(tmp_path / "a.pem")}


def test_tls_is_two_files(files: dict[str, str]) -> None:
    tls = ServerSettings.model_validate({"tls": {**files, "hsts_seconds": 9}}).tls
    assert (tls.is_on, tls.min_version, tls.hsts_seconds) == (True, "1.2", 9)
    assert not ServerSettings.model_validate({"tls": None}).tls.is_on


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cert_file": None}, "cert_file and key_file need each other"),
        ({"key_file": None}, "cert_file and key_file need each other"),
        ({"key_file": "/nowhere/key.pem"}, "is not a readable file"),
        ({"min_version": "1.1"}, "1.2"),
        ({"cert_file": None, "key_file": None, "hsts_seconds": 1}, "hsts_seconds is for HTTPS"),
    ],
)
def test_what_is_no_tls(files: dict[str, str], change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ServerSettings.model_validate({"tls": {**files, **change}})


@pytest.mark.parametrize(
    ("management", "address"),
    [
        ({"port": 9000}, ("127.0.0.1", 9000)),
        ({"port": 0, "host": "::1"}, ("::1", 0)),
        ({"port": 8080, "host": "10.0.0.1"}, None),
        ({"host": "10.0.0.1"}, None),
        ({"port": 70_000}, None),
    ],
)
def test_the_management_port_is_another_one(management: dict[str, object], address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(ValidationError):
            ServerSettings.model_validate({"management": management})
    else:
        assert ServerSettings.model_validate({"management": management}).management.address == address


def test_both_ports_may_be_free_ones() -> None:
    assert ServerSettings.model_validate({"port": 0, "management": {"port": 0}}).management.address is not None


def test_later_options_may_be_spelled_out_as_unset() -> None:
    spelled = {"peers": [], "tls": {"cert_file": None, "key_file": None}, "management": {"host": None, "port": None}}
    assert ServerSettings.model_validate(spelled) == ServerSettings()


def test_peers_of_a_gateway_with_tls_have_it_too(files: dict[str, str]) -> None:
    assert ServerSettings.model_validate({"tls": files, "peers": "https://a:1/"}).peers == ["a:1"]
    with pytest.raises(ValidationError):
        ServerSettings.model_validate({"tls": files, "peers": "http://a:1"})


def test_peers_are_addresses_with_our_port_where_they_name_none() -> None:
    server = ServerSettings.model_validate({"port": 81, "peers": "a, b:82,[::1]:83,http://10.0.0.1:84/,[fd00::1]"})
    assert server.peers == ["a", "b:82", "[::1]:83", "10.0.0.1:84", "[fd00::1]"]
    assert server.peer_addresses() == [("a", 81), ("b", 82), ("::1", 83), ("10.0.0.1", 84), ("fd00::1", 81)]


@pytest.mark.parametrize(
    "option",
    [
        {"peers": "https://a"},
        {"peers": "http://a/path"},
        {"peers": "a:0"},
        {"peers": "a:70000"},
        {"peers": "user@host:b:1"},
        {"peers": ["a b"]},
        {"peers": [f"a{number}" for number in range(65)]},
        {"peers": "a", "port": 0},
    ],
)
def test_what_is_no_address_of_a_peer(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate(option)
