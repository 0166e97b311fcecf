"""DIRAC's `/Resources/MQServices` to our services.

Meanings and defaults are DIRAC's: what is unset is empty, destinations inherit `Acknowledgement` and
`Persistent` from their service, both are false unless set, the longest pause between attempts is 120 s,
unknown options are ignored. A hash after white space ends a value (`Port = 9165   # why`), except in User
and Password, where DIRAC keeps it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from app.config.dirac_cfg import CfgOption, CfgSection
from app.config.document import Document, Keys, Value
from app.config.errors import ConfigError, Place, Problem
from app.domain.errors import InvalidName
from app.domain.uri import check_name

ROOT = "Resources/MQServices"
NO_SERVICES = (
    f"no section /{ROOT} in the CFG files given. On a machine with a DIRAC client, "
    "`dirac-configuration-dump-local-cache -f dirac.cfg` writes the whole Configuration Service into a file"
)

_INLINE_COMMENT = re.compile(r"\s#.*")
_VERBATIM = frozenset({"User", "Password"})
_TRUE, _FALSE = frozenset({"true", "yes", "y", "1"}), frozenset({"false", "no", "n", "0", ""})

# DIRAC's option -> ours, below services.<name>.
_PLAIN: dict[str, Keys] = {
    "MQType": ("mq_type",),
    "Host": ("host",),
    "Port": ("port",),
    "VHost": ("vhost",),
    "User": ("user",),
    "Password": ("password",),
    "Timeout": ("connect_timeout",),
    "ReconnectSleepInitial": ("reconnect", "initial"),
    "ReconnectSleepIncrease": ("reconnect", "increase"),
    "ReconnectSleepMax": ("reconnect", "max"),
    "ReconnectSleepJitter": ("reconnect", "jitter"),
}
_HEARTBEATS = ("OutgoingHeartbeatMs", "IncomingHeartbeatMs")
_TLS = ("SSLVersion", "HostCertificate", "HostKey")
_SWITCHES = {"Acknowledgement": "acknowledgement", "Persistent": "persistent"}
_KNOWN = (*_PLAIN, *_HEARTBEATS, *_TLS, *_SWITCHES, "ReconnectAttemptsMax")
_TYPES = {"Queues": "queues", "Topics": "topics"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPlaces:
    """Where DIRAC keeps its files: the trusted authorities, and the roots below which a host certificate
    may be."""

    authorities: Path = Path("/etc/grid-security/certificates")
    roots: tuple[Path, ...] = (Path("/opt/dirac"), Path("/"))


def map_services(cfg: CfgSection, environ: Mapping[str, str], places: GridPlaces) -> Document:
    """The services of a (merged) CFG tree as a document; raises ConfigError with NO_SERVICES."""
    root = cfg.find(ROOT)
    if root is None:
        raise ConfigError([Problem(NO_SERVICES, place=cfg.place)])
    document = Document()
    document.values["services"] = {
        name: _Service(name, section, document).mapped(_HostCertificate(cfg, environ, places))
        for name, section in root.sections.items()
    }
    return document


class _HostCertificate:
    """Finds certificate and key as DIRAC does: the environment, /DIRAC/Security, the standard file
    names."""

    def __init__(self, cfg: CfgSection, environ: Mapping[str, str], places: GridPlaces) -> None:
        self._cfg = cfg.find("DIRAC/Security")
        self._environ = environ
        self.authorities = places.authorities
        root = environ.get("DIRAC")
        self._roots = (Path(root),) if root else places.roots

    def find(self) -> tuple[str, str] | None:
        candidates = (self._of_environment(), self._of_cfg(), *self._standard())
        return next((pair for pair in candidates if pair and all(Path(name).is_file() for name in pair)), None)

    def _of_environment(self) -> tuple[str, str]:
        return self._environ.get("DIRAC_X509_HOST_CERT", ""), self._environ.get("DIRAC_X509_HOST_KEY", "")

    def _of_cfg(self) -> tuple[str, str] | None:
        options = self._cfg.options if self._cfg else {}
        if "CertFile" in options and "KeyFile" in options:
            return options["CertFile"].value, options["KeyFile"].value
        return None

    def _standard(self) -> Iterable[tuple[str, str]]:
        for root in self._roots:
            folder = root / "etc" / "grid-security"
            for prefix in ("server", "host", "dirac", "service"):
                yield str(folder / f"{prefix}cert.pem"), str(folder / f"{prefix}key.pem")


class _Service:
    """One section below /Resources/MQServices."""

    def __init__(self, name: str, section: CfgSection, document: Document) -> None:
        self._section = section
        self._document = document
        self._keys: Keys = ("services", name)
        self._values: dict[str, Value] = {"reconnect": {"max": "120"}}

    def mapped(self, certificate: _HostCertificate) -> dict[str, Value]:
        self._document.places[self._keys] = self._section.place
        self._warn_near_misses(self._section, (*_KNOWN, *_TYPES))
        if self._text("MQType") is None:
            problem = Problem("MQType is missing; this gateway knows Stomp", ".".join(self._keys), self._section.place)
            raise ConfigError([problem])
        for option, keys in _PLAIN.items():
            self._set(keys, option)
        self._heartbeats()
        if self._text("SSLVersion") is not None:
            self._tls(certificate)
        if self._text("ReconnectAttemptsMax") is not None:
            self._warn("ReconnectAttemptsMax", "has no effect: the gateway never gives up")
        for section, name in _TYPES.items():
            self._values[name] = self._destinations(section, name)
        return self._values

    def _option(self, option: str) -> CfgOption | None:
        return self._section.options.get(option)

    def _text(self, option: str) -> str | None:
        """The option without its inline comment; None if it is unset or empty, which DIRAC takes for the
        same."""
        found = self._option(option)
        return (_clean(option, found.value) or None) if found else None

    def _set(self, keys: Keys, option: str) -> None:
        value, found = self._text(option), self._option(option)
        if value is None or found is None:
            return
        if value != found.value:
            self._warn(
                option,
                "the comment after the value is not part of it here; DIRAC would take it for the value",
            )
        node = self._values
        for key in keys[:-1]:
            inner = node.setdefault(key, {})
            node = inner if isinstance(inner, dict) else {}
        node[keys[-1]] = value
        self._document.places[(*self._keys, *keys)] = found.place

    def _heartbeats(self) -> None:
        given = [self._text(option) for option in _HEARTBEATS]
        if not any(given):
            return
        self._values["heartbeat_ms"] = [value or "10000" for value in given]
        places = [self._section.options[option].place for option in _HEARTBEATS if self._text(option)]
        self._document.places[(*self._keys, "heartbeat_ms")] = places[0]

    def _tls(self, certificate: _HostCertificate) -> None:
        self._warn("SSLVersion", "means TLS 1.2 or newer with verification here, whatever its value")
        pair = self._own_certificate() or certificate.find()
        tls: dict[str, Value] = {}
        if pair:
            tls |= {"cert_file": pair[0], "key_file": pair[1]}
        elif self._text("User") is None:
            reason = (
                "SSLVersion without User needs HostCertificate and HostKey, or a host certificate where DIRAC looks"
            )
            raise ConfigError([Problem(reason, ".".join(self._keys), self._section.place)])
        else:
            self._warn("SSLVersion", "no host certificate found: logging in with user and password only")
        if certificate.authorities.is_dir():
            tls["ca_path"] = str(certificate.authorities)
        self._values["tls"] = tls

    def _own_certificate(self) -> tuple[str, str] | None:
        cert, key = self._text("HostCertificate"), self._text("HostKey")
        if (cert is None) != (key is None):
            reason = "HostCertificate and HostKey need each other"
            raise ConfigError([Problem(reason, ".".join(self._keys), self._section.place)])
        return (cert, key) if cert and key else None

    def _destinations(self, section: str, name: str) -> dict[str, Value]:
        found = self._section.sections.get(section)
        result: dict[str, Value] = {}
        for destination, node in (found.sections if found else {}).items():
            if not _is_declarable(destination):
                self._document.warnings.append(
                    f"{node.place}: left out: no broker takes {destination!r} for a plain name"
                )
                continue
            self._warn_near_misses(node, tuple(_SWITCHES))
            self._document.places[(*self._keys, name, destination)] = node.place
            result[destination] = {ours: self._switch(theirs, node) for theirs, ours in _SWITCHES.items()}
        return result

    def _switch(self, option: str, destination: CfgSection) -> str:
        found = destination.options.get(option) or self._option(option)
        value = _clean(option, found.value).lower() if found else ""
        if found and value not in _TRUE | _FALSE:
            self._document.warnings.append(
                f"{found.place}: {option}: neither true nor false, taken for false as in DIRAC"
            )
        return "true" if value in _TRUE else "false"

    def _warn(self, option: str, reason: str) -> None:
        found = self._option(option)
        place = found.place if found else self._section.place
        self._document.warnings.append(f"{place}: {option}: {reason}")

    def _warn_near_misses(self, section: CfgSection, known: tuple[str, ...]) -> None:
        names: dict[str, Place] = {name: option.place for name, option in section.options.items()}
        names |= {name: inner.place for name, inner in section.sections.items() if section is self._section}
        by_fold = {name.lower(): name for name in known}
        for name, place in names.items():
            near = get_close_matches(name.lower(), by_fold, 1, 0.8)
            if name not in known and near:
                text = f"{place}: {name} is ignored; did you mean {by_fold[near[0]]}?"
                self._document.warnings.append(text)


def _is_declarable(name: str) -> bool:
    try:
        check_name(name)
    except InvalidName:
        return False
    return True


def _clean(option: str, value: str) -> str:
    return value if option in _VERBATIM else _INLINE_COMMENT.sub("", value).rstrip()
