"""Settings of one mqService: where the broker is, who we are there, what it holds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.config.address import parse_address
from app.config.destination import DestinationSettings, QueueSettings, TopicSettings
from app.config.section import (
    EMPTY_ALLOWED,
    Port,
    PositiveSeconds,
    ReadableFile,
    ReadableFolder,
    Section,
    Size,
    TextList,
)
from app.domain.errors import InvalidName
from app.domain.uri import MAX_NAME_BYTES, MqUri, check_name, subscription_queue

STOMP = "Stomp"
MEMORY = "Memory"

_BOOL = TypeAdapter(bool)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.IGNORECASE)
#: The ways to give a password; one of them at most.
PASSWORD_OPTIONS = ("password", "password_file", "password_env")


def _declarable(name: str) -> str:
    try:
        return check_name(name)
    except InvalidName as error:
        raise PydanticCustomError("name", "{reason}", {"reason": str(error)}) from None


DestinationName = Annotated[str, AfterValidator(_declarable)]


class TlsSettings(Section):
    """TLS 1.2 or newer to the broker. `tls: true` is this section with its defaults."""

    ca_file: ReadableFile | None = None
    """PEM file with the certificates of the authorities that are trusted; unset and no `ca_path`: the
    system's."""

    ca_path: ReadableFolder | None = None
    """Folder of trusted certificates under their OpenSSL hash names, such as
    `/etc/grid-security/certificates`."""

    cert_file: ReadableFile | None = None
    """PEM file with our own certificate and its chain."""

    key_file: ReadableFile | None = None
    """PEM file with its private key, without a passphrase; unset: the key is in `cert_file`."""

    verify: bool = True
    """Whether the broker's certificate and name are verified. False is for tests only."""

    server_name: str | None = None
    """Name the broker's certificate is verified against and that is sent as SNI; unset: the configured
    host."""

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("`key_file` without `cert_file`")
        return self


class ReconnectSettings(Section):
    """Pause before attempt n after a failed one: min(max, initial * (1 + increase)^n) * (1 + random *
    jitter)."""

    initial: PositiveSeconds = 1.0
    """Seconds before the second attempt."""

    increase: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Growth of the pause with each failed attempt, as a fraction."""

    max: PositiveSeconds = 15.0
    """Longest pause in seconds, before jitter. 120 in a DIRAC CFG file that does not say."""

    jitter: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Random extra, as a fraction of the pause, so that replicas do not come back in step."""


class ServiceSettings(Section):
    """One broker resource: one authenticated connection and the destinations declared on it."""

    mq_type: Annotated[str, Field(min_length=1)] = STOMP
    """`Stomp`, `Memory` (in this process, for trying out) or the name of an entry point in the group
    `mq_gateway.connectors`."""

    host: str | None = None
    """Name or address of the broker; all addresses of a name are tried. Exclusive with `hosts`."""

    hosts: TextList = Field(default_factory=list)
    """Several brokers that hold the same destinations, each `name`, `name:port` or `[v6 address]:port`,
    tried in this order."""

    port: Port = 61613
    """TCP port where `host` or an entry of `hosts` names none."""

    consume_from: Literal["one", "all"] | None = None
    """`one` connection consumes. `all`: one to each address behind `host` or `hosts` does, for brokers that know
    nothing of each other; publishing has one of its own. Unset: `one`, with a warning where several are ActiveMQ."""

    vhost: Annotated[str, Field(min_length=1)] = "/"
    """Virtual host, sent as the CONNECT header `host`."""

    user: str | None = None
    """Login at the broker; unset where a certificate is the login."""

    password: SecretStr | None = None
    """Password at the broker. One of `password`, `password_file`, `password_env`."""

    password_file: Path | None = None
    """File that holds the password; one line end at its end is not part of it."""

    password_env: str | None = None
    """Name of the environment variable that holds the password."""

    tls: TlsSettings | None = None
    """TLS to the broker: a section, or `true` for its defaults; unset or `false`: plain TCP."""

    heartbeat_ms: tuple[Annotated[int, Field(ge=0, le=3_600_000)], Annotated[int, Field(ge=0, le=3_600_000)]] = (
        10_000,
        10_000,
    )
    """STOMP heart-beats in milliseconds: what we promise to send, what we ask the broker for; 0 is none."""

    connect_timeout: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Seconds for one attempt: name, TCP, TLS and CONNECTED together."""

    reconnect: ReconnectSettings = Field(default_factory=ReconnectSettings)
    """Back-off after failed attempts; a connection that had been up reconnects at once."""

    required: bool = False
    """True: the gateway is not ready until this service has been up once."""

    connections: Literal["single", "split"] = "single"
    """`single`: one connection for everything. `split`: publishing has one of its own, so that ACKs pass while the
    broker reads nothing from connections that publish (a memory alarm of RabbitMQ)."""

    allow_undeclared: bool = False
    """True: destinations that are not declared exist too, with default settings."""

    max_frame_bytes: Size | None = None
    """Largest STOMP frame in bytes the broker takes; unset: by broker and version."""

    consumer_timeout: PositiveSeconds | None = None
    """Seconds a message may stay unacknowledged before the broker ends the connection, as configured there; unset: 1800
    on RabbitMQ, its default, and no limit elsewhere. What waits here for four fifths of it goes back to its queue."""

    client_id: str | None = None
    """STOMP `client-id` for ActiveMQ and Artemis, under which they keep durable subscriptions. ActiveMQ takes it from
    one connection at a time: one replica."""

    queues: dict[DestinationName, Annotated[QueueSettings, EMPTY_ALLOWED]] = Field(default_factory=dict)
    """The declared Queues by name."""

    topics: dict[DestinationName, Annotated[TopicSettings, EMPTY_ALLOWED]] = Field(default_factory=dict)
    """The declared Topics by name."""

    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Free options for the connector of an `mq_type` of your own; every scalar arrives as text."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_password(cls, data: object, info: ValidationInfo) -> object:
        if not isinstance(data, Mapping):
            return data
        given = [option for option in PASSWORD_OPTIONS if data.get(option) is not None]
        if len(given) > 1:
            raise PydanticCustomError("password", "only one of {given}", {"given": ", ".join(given)})
        if given in ([], ["password"]):
            return data
        environ = (info.context or {}).get("environ", os.environ)
        return {**data, "password": SecretStr(_password(given[0], data[given[0]], environ))}

    @field_validator("tls", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        if isinstance(value, bool | str):
            try:
                return {} if _BOOL.validate_python(value) else None
            except ValidationError:
                raise PydanticCustomError("tls", "a section, true or false") from None
        return value

    @field_validator("queues", "topics", "options", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("hosts")
    @classmethod
    def _parsable(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_address(text, 0)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.host is not None and self.hosts:
            raise ValueError("only one of host, hosts")
        if self.mq_type == STOMP and not self.host and not self.hosts:
            raise ValueError("`host` (or `hosts`) is missing")
        if self.consume_from == "all":
            self._check_consume_from_all()
        for topic, settings in self.topics.items():
            for name in settings.subscriptions:
                if len(subscription_queue(topic, name, settings.destination).encode()) > MAX_NAME_BYTES:
                    raise ValueError(f"topics.{topic}: with its subscription {name!r} the name is too long")
        if self.options and self.mq_type in (STOMP, MEMORY):
            raise ValueError(f"`options` is for connectors of your own; {self.mq_type} takes none")
        return self

    def _check_consume_from_all(self) -> None:
        if self.mq_type == MEMORY:
            raise ValueError(f"`consume_from: all` is for brokers with addresses; {MEMORY} has none")
        streams = [name for name, topic in self.topics.items() if topic.is_stream]
        if streams:
            raise ValueError(f"`consume_from: all` and `replay: stream` of {streams[0]}: offsets are of one broker")
        kept = [name for name, topic in self.topics.items() if topic.subscriptions]
        if kept:
            raise ValueError(f"`consume_from: all` and `subscriptions` of {kept[0]}: they are kept by one broker")

    def addresses(self) -> list[tuple[str, int]]:
        """The configured (name or address, port) pairs in order; names are not resolved."""
        if self.host:
            return [(self.host.removeprefix("[").removesuffix("]"), self.port)]
        return [parse_address(text, self.port) for text in self.hosts]

    def destination(self, uri: MqUri) -> DestinationSettings | None:
        """What is configured for the destination; None if it does not exist. The service part is not
        compared."""
        if uri.is_queue:
            queue = self.queues.get(uri.name)
            return QueueSettings() if queue is None and self.allow_undeclared else queue
        topic = self.topics.get(uri.name)
        return TopicSettings() if topic is None and self.allow_undeclared else topic


def _password(option: str, where: str, environ: Mapping[str, str]) -> str:
    if option == "password_env":
        if where not in environ:
            # What is no name is the password itself, beside its place.
            shown = where if _VARIABLE.fullmatch(where) else "of this name"
            raise PydanticCustomError("password", "password_env: the variable {where} is not set", {"where": shown})
        return environ[where]
    try:
        text = Path(where).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PydanticCustomError(
            "password", "password_file: {where}: {reason}", {"where": str(where), "reason": reason}
        ) from None
    return text.removesuffix("\n").removesuffix("\r")
