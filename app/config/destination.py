"""Settings of one declared Queue or Topic."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from app.config.json_schema import JsonSchema
from app.config.section import ReadableFile, Section, Size, TextList
from app.domain.errors import InvalidName
from app.domain.uri import check_name

_SUBSCRIPTION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class DestinationSettings(Section):
    """What Queues and Topics have in common."""

    acknowledgement: bool = False
    """For `create_consumer`: true acknowledges after the callback returned (raised: given back), false
    on arrival. HTTP readers follow their own `ack=`."""

    persistent: bool = False
    """Whether publishes are persistent unless the request says otherwise. Default: true for Queues,
    false for Topics, false in a DIRAC CFG file."""

    prefetch: Annotated[int, Field(ge=1, le=65_535)] = 10
    """Unacknowledged messages (count) the broker may hand to one consumer."""

    arguments: dict[str, str] = Field(default_factory=dict)
    """Headers sent with the first SEND and SUBSCRIBE of a session, such as RabbitMQ's `x-queue-type:
    quorum`. Not together with `destination`."""

    declare: bool = True
    """RabbitMQ: false addresses a queue that exists already without declaring it, whatever its
    arguments."""

    destination: str | None = None
    """The broker's own destination, such as `/exchange/logs/app.#`, instead of the one made from the
    name."""

    check_json: bool = True
    """Whether a publish with a JSON media type must hold valid JSON."""

    json_schema: ReadableFile | None = Field(default=None, alias="schema")
    """JSON Schema file that bodies must fit; what is not JSON is refused too. References stay within the
    file. Read when the configuration is."""

    default_content_type: Annotated[str, Field(min_length=3, max_length=255)] | None = None
    """Content type of a publish that names none; unset means `application/octet-stream`."""

    _schema: JsonSchema | None = PrivateAttr(default=None)

    @property
    def schema_of_bodies(self) -> JsonSchema | None:
        """`schema`, compiled."""
        return self._schema

    @property
    def is_stream(self) -> bool:
        """Whether a stream stands behind it."""
        return False

    @property
    def is_backed(self) -> bool:
        """Whether the broker has to have something behind it before the first publish."""
        return self.is_stream

    @model_validator(mode="after")
    def _schema_is_one(self) -> Self:
        if self.json_schema is None:
            return self
        if not self.check_json:
            raise ValueError("`schema` and `check_json: false` exclude each other")
        try:
            self._schema = JsonSchema(self.json_schema.read_text(encoding="utf-8"))
        except ValueError as error:  # what is not UTF-8 included
            raise ValueError(f"{self.json_schema}: {error}") from None
        return self

    @model_validator(mode="after")
    def _arguments_need_our_name(self) -> Self:
        if self.arguments and self.destination is not None:
            raise ValueError(
                "`arguments` and `destination` exclude each other: arguments declare what the name stands for"
            )
        return self


def _stream_name(name: str) -> str:
    if name.startswith("amq."):
        raise ValueError("names with amq. in front are RabbitMQ's own")
    try:
        return check_name(name)
    except InvalidName as error:
        raise ValueError(str(error)) from None


def _subscription_names(names: list[str]) -> list[str]:
    """Each becomes a part of names at the broker, where a dot or a wildcard would mean something."""
    for name in names:
        if not _SUBSCRIPTION.fullmatch(name):
            raise ValueError(f"{name!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


class QueueSettings(DestinationSettings):
    """A Queue: each message goes to exactly one consumer and is kept until one comes."""

    persistent: bool = True
    """Whether publishes are persistent unless the request says otherwise. False in a DIRAC CFG file that
    does not say."""


class TopicSettings(DestinationSettings):
    """A Topic: each message goes to every subscriber. Its ring is what late and returning readers are
    served from."""

    replay: Literal["ring", "stream"] = "ring"
    """Where replay comes from: `ring` is this process's memory, `stream` a RabbitMQ stream (3.9 or newer) that every
    replica reads and that outlives restarts. The stream is declared and bound when the link comes up. `Memory` keeps a
    stream in this process."""

    ring_messages: Annotated[int, Field(ge=1, le=10_000_000)] = 1024
    """Messages (count) the ring keeps."""

    ring_bytes: Size = 8_388_608
    """Bytes the ring keeps; the tighter of the two bounds counts."""

    linger: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    """Seconds without readers after which the ring and its subscription are dropped."""

    keep: bool = False
    """True: subscribed from the start and never dropped."""

    slow: Literal["gap", "latest", "disconnect"] = "gap"
    """For a reader that fell behind the ring: `gap` goes on with the oldest kept, `latest` with the
    newest, `disconnect` ends its stream."""

    stream: Annotated[str, AfterValidator(_stream_name)] | None = None
    """Name of the RabbitMQ stream behind the Topic; unset: the Topic's name with `-stream` behind it."""

    stream_max_age: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[YMDhms]$")] | None = None
    """Age after which the stream's messages may go, such as `7D`: a number and one of Y, M, D, h, m, s. Unset: as the
    broker's policies say. RabbitMQ refuses another value than the one an existing stream was declared with."""

    subscriptions: Annotated[TextList, AfterValidator(_subscription_names)] = Field(default_factory=list)
    """Names of durable subscriptions, 1-64 of A-Z a-z 0-9 _ -: each keeps its own copy of every message until a worker
    has taken it with `receive?subscription=`. Made and bound when the link comes up. RabbitMQ: the durable queue
    `<topic>::<subscription>`; a queue of that name that is there is taken as it is. ActiveMQ: a Topic whose name there
    begins with `VirtualTopic.`, or the service's `client_id`. Artemis: `client_id`. `Memory` keeps them in this
    process. With a `destination` the name ends with a digest of it. A name that is taken away, or another
    `destination`, leaves the queue, and what is in it, at the broker."""

    @property
    def is_stream(self) -> bool:
        return self.replay == "stream"

    @property
    def is_backed(self) -> bool:
        return self.is_stream or bool(self.subscriptions)

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if not self.is_stream and (self.stream is not None or self.stream_max_age is not None):
            raise ValueError("`stream` and `stream_max_age` need `replay: stream`")
        if self.is_stream and (self.destination is not None or self.arguments):
            raise ValueError("`replay: stream` declares the stream itself: without `destination` and `arguments`")
        return self
