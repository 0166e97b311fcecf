"""Settings of the HTTP server."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.config.address import parse_address
from app.config.management import ManagementSettings
from app.config.section import EMPTY_ALLOWED, PositiveSeconds, Seconds, Section, TextList, only
from app.config.server_tls import ServerTlsSettings

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[^\s/:?#\[\]@*]+)(?::[0-9]{1,5})?")
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[^\s/:?#\[\]@*]+")


class ServerSettings(Section):
    """Where the gateway listens and how long it waits for whom."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback see `auth.mode`."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """TCP port; 0 takes a free one."""

    root_path: str = ""
    """Path prefix under which a reverse proxy publishes the gateway, such as `/gateway`."""

    allowed_hosts: TextList = Field(default_factory=list)
    """Names, without port, that the Host header may have beside loopback names (against DNS rebinding)."""

    allowed_origins: TextList = Field(default_factory=list)
    """Origins, such as `https://dash.example`, whose pages may use the gateway."""

    trusted_proxies: TextList = Field(default_factory=list)
    """Addresses or networks of the reverse proxies whose word on a client's address and scheme counts:
    X-Forwarded-For and X-Forwarded-Proto, or Forwarded. A proxy has to replace what a client sends of these."""

    tls: Annotated[ServerTlsSettings, EMPTY_ALLOWED] = Field(default_factory=ServerTlsSettings)
    """TLS of the gateway itself."""

    management: Annotated[ManagementSettings, EMPTY_ALLOWED] = Field(default_factory=ManagementSettings)
    """A port of its own for health and metrics."""

    peers: Annotated[TextList, Field(max_length=64)] = Field(default_factory=list)
    """Where the replicas of this gateway are reached, each `name`, `name:port` or `[v6 address]:port`; where no port is
    given it is `port`. All addresses of a name count, and this process may be among them. What a worker says of a lease
    of another replica is told to it there. Needs `auth.secret_file`; taken over by a reload."""

    drain_delay: Seconds = 0.0
    """Seconds between being told to stop and taking no new work, so that load balancers can notice."""

    drain_seconds: PositiveSeconds = 20.0
    """Seconds for what is in flight to end when the gateway stops."""

    write_timeout: PositiveSeconds = 10.0
    """Seconds without any progress after which a reader that does not take its bytes is cut off."""

    header_timeout: PositiveSeconds = 10.0
    """Seconds a client may take for the head of a request."""

    idle_timeout: PositiveSeconds = 75.0
    """Seconds a connection may stay open between requests; a body may be silent as long, and has that and a second
    for every KiB of it to come whole."""

    heartbeat: Annotated[float, Field(ge=0.01, le=86_400)] = 15.0
    """Seconds of silence after which an event stream gets a comment."""

    log_format: Literal["console", "json"] = "console"
    """Lines for people, or one JSON object a line."""

    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """The lowest level that is logged."""

    state_file: Annotated[Path | None, only(None)] = None
    """File for state that outlives the process. Not supported in this version."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def peer_addresses(self) -> list[tuple[str, int]]:
        """The (name or address, port) pairs of `peers`; names are not resolved."""
        return [parse_address(text, self.port) for text in self.peers]

    @field_validator("root_path")
    @classmethod
    def _rooted(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.endswith("/")):
            raise ValueError("empty, or with a slash at its beginning and none at its end")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        return [
            _matching(_ORIGIN, text, "an origin is scheme://host[:port], without path or wildcard") for text in value
        ]

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: list[str]) -> list[str]:
        return [_matching(_HOST, text, "a host name has no scheme, port or wildcard") for text in value]

    @field_validator("peers")
    @classmethod
    def _reachable(cls, value: list[str], info: ValidationInfo) -> list[str]:
        """Without the scheme that people write before such things; replicas speak to each other as to all."""
        tls = info.data.get("tls")
        scheme = "https://" if tls is not None and tls.is_on else "http://"
        bare = [text.removeprefix(scheme).removesuffix("/") for text in value]
        for text in bare:
            if not parse_address(text, info.data.get("port", 1))[1]:
                raise ValueError(f"{text!r} has no port, and `port` is 0")
        return bare

    @field_validator("management")
    @classmethod
    def _elsewhere(cls, value: ManagementSettings, info: ValidationInfo) -> ManagementSettings:
        """On a port of its own: one address cannot be both, and one port on two addresses confuses whoever filters."""
        if value.port and value.port == info.data.get("port"):
            raise ValueError("must have another port than the gateway itself")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is neither an address nor a network") from None
        return value


def _matching(pattern: re.Pattern[str], text: str, rule: str) -> str:
    if not pattern.fullmatch(text.lower()):
        raise ValueError(f"{text!r}: {rule}")
    return text.lower()
