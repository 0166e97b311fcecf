"""DIRAC's /Resources/MQServices to our services."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.config.dirac_cfg import parse_cfg
from app.config.dirac_services import GridPlaces, map_services
from app.config.document import Document
from app.config.errors import ConfigError
from app.config.settings import ServiceSettings, Settings

#: The example of DIRAC's documentation; its comments are worded anew.
DOCUMENTED = """
Resources
{
  # All message queue services; one
  # section each
  MQServices
  {
    # An arbitrary name = not necessarily the host's
    mardirac3.in2p3.fr
    {
      # Mandatory
      MQType = Stomp
      # Name of the server
      Host = mardirac3.in2p3.fr
      # Its port
      Port = 9165
      # Virtual host
      VHost = /
      # Not needed with a certificate
      User = guest
      # Only ever in a local file
      Password = guest
      # Set: a certificate is used (see "HostCertificate" and "HostKey")
      %s
      # One section for each queue
      Queues
      {
        # Its name
        TestQueue
        {
          # Whether receivers acknowledge
          Acknowledgement = True
          # Whether messages survive
          Persistent = False
        }
      }
    }
  }
}
"""


def _cfg(body: str, rest: str = "") -> str:
    options = body if "MQType" in body else f"MQType = Stomp\n{body}"
    return f"Resources\n{{\nMQServices\n{{\nm\n{{\nHost = h\n{options}\n}}\n}}\n}}\n{rest}"


def _map(content: str, grid: Path, environ: Mapping[str, str] | None = None) -> Document:
    places = GridPlaces(authorities=grid / "certificates", roots=(grid / "root",))
    return map_services(parse_cfg("dirac.cfg", content), environ or {}, places)


def _service(content: str, grid: Path, environ: Mapping[str, str] | None = None) -> ServiceSettings:
    return _settings(_map(content, grid, environ))


def _settings(document: Document) -> ServiceSettings:
    return next(iter(Settings.model_validate(document.values).services.values()))


def _pem(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_documented_example_works_as_it_is(tmp_path: Path) -> None:
    service = _service(DOCUMENTED % "", tmp_path)
    assert service.addresses() == [("mardirac3.in2p3.fr", 9165)]
    assert (service.vhost, service.user) == ("/", "guest")
    assert service.password is not None
    assert service.password.get_secret_value() == "guest"
    assert service.tls is None
    queue = service.queues["TestQueue"]
    assert (queue.acknowledgement, queue.persistent) == (True, False)
    assert service.reconnect.max == 120


def test_the_documented_example_with_tls(tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    cert = _pem(tmp_path / "root/etc/grid-security/hostcert.pem")
    key = _pem(tmp_path / "root/etc/grid-security/hostkey.pem")
    tls = _service(DOCUMENTED % "SSLVersion = TLSv1", tmp_path).tls
    assert tls is not None
    assert (tls.cert_file, tls.key_file, tls.ca_path) == (cert, key, tmp_path / "certificates")
    assert tls.verify


def test_every_option_is_cast(tmp_path: Path) -> None:
    body = [
        "Port = 9165   # as the firewall allows",
        "VHost = /lhcb",
        "ReconnectSleepInitial = 2",
        "ReconnectSleepIncrease = 0.7",
        "ReconnectSleepMax = 60",
        "ReconnectSleepJitter = 0.2",
        "OutgoingHeartbeatMs = 15000",
        "IncomingHeartbeatMs = 16000",
        "Timeout = 30",
    ]
    service = _service(_cfg("\n".join(body)), tmp_path)
    assert (service.port, service.vhost, service.connect_timeout) == (9165, "/lhcb", 30)
    assert service.heartbeat_ms == (15_000, 16_000)
    pauses = service.reconnect
    assert (pauses.initial, pauses.increase, pauses.max, pauses.jitter) == (2, 0.7, 60, 0.2)


def test_defaults_are_diracs_and_empty_is_unset(tmp_path: Path) -> None:
    service = _service(_cfg("Port =\nUser =\nPassword =\nSSLVersion =\nVHost ="), tmp_path)
    assert (service.port, service.vhost, service.user, service.password) == (61613, "/", None, None)
    assert service.tls is None
    assert service.heartbeat_ms == (10_000, 10_000)


@pytest.mark.parametrize(
    ("option", "beats"),
    [("IncomingHeartbeatMs", (10_000, 20_000)), ("OutgoingHeartbeatMs", (20_000, 10_000))],
)
def test_one_heartbeat_leaves_the_other(tmp_path: Path, option: str, beats: tuple[int, int]) -> None:
    document = _map(_cfg(f"{option} = 20000"), tmp_path)
    assert _settings(document).heartbeat_ms == beats
    assert str(document.place(("services", "m", "heartbeat_ms"))) == "dirac.cfg:9"


def test_values_know_their_lines(tmp_path: Path) -> None:
    document = _map(_cfg("Port = many\nReconnectSleepMax = long"), tmp_path)
    assert str(document.place(("services", "m", "port"))) == "dirac.cfg:9"
    assert str(document.place(("services", "m", "reconnect", "max"))) == "dirac.cfg:10"


def test_user_and_password_keep_every_character(tmp_path: Path) -> None:
    service = _service(_cfg("User = a # b\nPassword = c #d = {e}"), tmp_path)
    assert service.user == "a # b"
    assert service.password is not None
    assert service.password.get_secret_value() == "c #d = {e}"


def test_a_comment_after_a_value_is_warned_about_without_the_value(tmp_path: Path) -> None:
    document = _map(_cfg("Port = 1 # x\nPassword = hunter2 # y"), tmp_path)
    assert len(document.warnings) == 1
    assert document.warnings[0].startswith("dirac.cfg:9: Port: the comment after the value")


def test_destinations_may_be_empty_sections_with_dots(tmp_path: Path) -> None:
    service = _service(_cfg("Queues\n{\nlhcb.dirac.logging {}\n}\nTopics\n{\nt { }\n}\n"), tmp_path)
    assert list(service.queues) == ["lhcb.dirac.logging"]
    queue, topic = service.queues["lhcb.dirac.logging"], service.topics["t"]
    assert (queue.acknowledgement, queue.persistent, topic.acknowledgement) == (False, False, False)


@pytest.mark.parametrize(
    ("value", "on"),
    [("True", True), ("yes", True), ("1", True), ("Y # why", True), ("no", False), ("0", False), ("", False)],
)
def test_switches(tmp_path: Path, value: str, *, on: bool) -> None:
    document = _map(_cfg(f"Queues\n{{\nq\n{{\nPersistent = {value}\n}}\n}}"), tmp_path)
    assert _settings(document).queues["q"].persistent is on
    assert document.warnings == []


def test_a_switch_that_is_neither_is_false_with_a_warning(tmp_path: Path) -> None:
    document = _map(_cfg("Queues\n{\nq\n{\nPersistent = perhaps\n}\n}"), tmp_path)
    assert _settings(document).queues["q"].persistent is False
    assert document.warnings == ["dirac.cfg:13: Persistent: neither true nor false, taken for false as in DIRAC"]


def test_destinations_inherit_from_their_service_and_win(tmp_path: Path) -> None:
    queues = "Queues\n{\na { }\nb\n{\nPersistent = no\n}\n}"
    service = _service(_cfg(f"Persistent = yes\nAcknowledgement = yes\n{queues}"), tmp_path)
    assert (service.queues["a"].persistent, service.queues["a"].acknowledgement) == (True, True)
    assert (service.queues["b"].persistent, service.queues["b"].acknowledgement) == (False, True)


def test_a_wildcard_is_left_out_with_a_warning(tmp_path: Path) -> None:
    document = _map(_cfg("Topics\n{\nlhcb.> { }\nplain { }\n}"), tmp_path)
    assert list(_settings(document).topics) == ["plain"]
    assert document.warnings == ["dirac.cfg:11: left out: no broker takes 'lhcb.>' for a plain name"]


def test_unknown_options_are_ignored_and_near_misses_warned_about(tmp_path: Path) -> None:
    service = "Pasword = hunter2\nport = 1\nColour = blue\nQueue\n{\n}"
    document = _map(_cfg(f"{service}\nQueues\n{{\nq\n{{\nPersistant = yes\n}}\n}}"), tmp_path)
    assert document.warnings == [
        "dirac.cfg:9: Pasword is ignored; did you mean Password?",
        "dirac.cfg:10: port is ignored; did you mean Port?",
        "dirac.cfg:12: Queue is ignored; did you mean Queues?",
        "dirac.cfg:19: Persistant is ignored; did you mean Persistent?",
    ]


def test_a_limit_of_attempts_has_no_effect_and_says_so(tmp_path: Path) -> None:
    assert "never gives up" in _map(_cfg("ReconnectAttemptsMax = 5"), tmp_path).warnings[0]


def test_without_the_section_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dirac-configuration-dump-local-cache -f"):
        _map("DIRAC\n{\nSetup = x\n}\n", tmp_path)


def test_the_type_is_mandatory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^dirac\.cfg:5: services\.m: MQType is missing"):
        _map(_cfg("MQType ="), tmp_path)


class TestCertificates:
    """Where the host certificate comes from when SSLVersion is set."""

    def test_own_options_win(self, tmp_path: Path) -> None:
        cert, key = _pem(tmp_path / "c.pem"), _pem(tmp_path / "k.pem")
        _pem(tmp_path / "root/etc/grid-security/servercert.pem")
        _pem(tmp_path / "root/etc/grid-security/serverkey.pem")
        tls = _service(_cfg(f"SSLVersion = x\nHostCertificate = {cert}\nHostKey = {key}"), tmp_path).tls
        assert tls is not None
        assert (tls.cert_file, tls.key_file, tls.ca_path) == (cert, key, None)

    def test_the_environment_then_dirac_security_then_the_root(self, tmp_path: Path) -> None:
        cert, key = _pem(tmp_path / "c.pem"), _pem(tmp_path / "k.pem")
        environ = {"DIRAC_X509_HOST_CERT": str(cert), "DIRAC_X509_HOST_KEY": str(key)}
        security = f"DIRAC\n{{\nSecurity\n{{\nCertFile = {cert}\nKeyFile = {key}\n}}\n}}\n"
        rooted = _pem(tmp_path / "elsewhere/etc/grid-security/dirackey.pem").parent
        _pem(rooted / "diraccert.pem")
        for content, variables, found in (
            (_cfg("SSLVersion = x"), environ, cert),
            (_cfg("SSLVersion = x", security), {}, cert),
            (_cfg("SSLVersion = x"), {"DIRAC": str(tmp_path / "elsewhere")}, rooted / "diraccert.pem"),
        ):
            tls = _service(content, tmp_path, variables).tls
            assert tls is not None
            assert tls.cert_file == found

    def test_without_any_a_user_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="SSLVersion without User needs HostCertificate"):
            _map(_cfg("SSLVersion = x"), tmp_path)
        document = _map(_cfg("SSLVersion = x\nUser = u"), tmp_path)
        assert "TLS 1.2 or newer" in document.warnings[0]
        assert "no host certificate found" in document.warnings[1]
        tls = _settings(document).tls
        assert tls is not None
        assert (tls.cert_file, tls.verify) == (None, True)

    def test_half_a_pair_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="HostCertificate and HostKey need each other"):
            _map(_cfg("SSLVersion = x\nHostKey = k"), tmp_path)
