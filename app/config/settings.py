"""The whole configuration as one immutable value. Every option is documented where it is defined.

Sources and their order are in `app.config.loader`; docs/reference/configuration.md is made from here.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.config.auth import AuthSettings
from app.config.destination import DestinationSettings, QueueSettings, TopicSettings
from app.config.limits import LimitSettings
from app.config.management import ManagementSettings
from app.config.section import EMPTY_ALLOWED, Section
from app.config.server import ServerSettings
from app.config.server_tls import ServerTlsSettings
from app.config.service import MEMORY, STOMP, ReconnectSettings, ServiceSettings, TlsSettings
from app.domain.uri import SEPARATOR

__all__ = [
    "MEMORY",
    "STOMP",
    "AuthSettings",
    "DestinationSettings",
    "LimitSettings",
    "ManagementSettings",
    "QueueSettings",
    "ReconnectSettings",
    "ServerSettings",
    "ServerTlsSettings",
    "ServiceSettings",
    "Settings",
    "TlsSettings",
    "TopicSettings",
]

# A service is one segment of a URL's path and the first part of an mqURI.
_UNSPEAKABLE = re.compile(r"[\x00-\x20\x7f-\x9f/?#%*]")


def _service_name(name: str) -> str:
    if not 0 < len(name.encode()) <= 255 or SEPARATOR in f"{name}:" or _UNSPEAKABLE.search(name):
        raise PydanticCustomError(
            "name",
            "a service name has 1-255 bytes without `::`, spaces, control characters or any of / ? # % *",
        )
    return name


ServiceName = Annotated[str, AfterValidator(_service_name)]


class Settings(Section):
    """The configuration of one gateway process."""

    server: Annotated[ServerSettings, EMPTY_ALLOWED] = Field(default_factory=ServerSettings)
    """The HTTP side."""

    services: dict[ServiceName, Annotated[ServiceSettings, EMPTY_ALLOWED]] = Field(default_factory=dict)
    """The brokers by the name clients use for them (mqService)."""

    auth: Annotated[AuthSettings, EMPTY_ALLOWED] = Field(default_factory=AuthSettings)
    """Who may use the gateway."""

    limits: Annotated[LimitSettings, EMPTY_ALLOWED] = Field(default_factory=LimitSettings)
    """Bounds per process."""

    @field_validator("services", mode="before")
    @classmethod
    def _none_yet(cls, value: object) -> object:
        return {} if value is None else value

    @model_validator(mode="after")
    def _replicas_share_a_secret(self) -> Self:
        if self.server.peers and self.auth.secret_file is None:
            raise PydanticCustomError(
                "peers", "server.peers needs auth.secret_file: replicas sign what they say to each other"
            )
        return self
