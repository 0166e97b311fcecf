"""What the client commands take on their command line, checked before anything is sent."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.client.connection import check_token, check_url
from app.domain.errors import GatewayError
from app.domain.uri import MqUri

DEFAULT_URL = "http://127.0.0.1:8080"
#: Bytes of standard input that are taken for a message; no gateway takes as many.
MAX_BODY_BYTES = 256 << 20


class Confirm(StrEnum):
    """When a publish is done."""

    RECEIPT = "receipt"
    NONE = "none"


class Format(StrEnum):
    """How a message is shown."""

    DATA = "data"
    ENVELOPE = "envelope"
    CLOUDEVENTS = "cloudevents"


class Start(StrEnum):
    """Where a Topic's stream begins."""

    NOW = "now"
    EARLIEST = "earliest"


def parser(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """The check with its errors as usage errors."""

    def parse(text: str) -> Any:  # noqa: ANN401  # whatever the check makes of the text
        try:
            return check(text)
        except (ValueError, GatewayError) as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def key_value(text: str) -> tuple[str, str]:
    """`NAME=VALUE` as a pair; raises ValueError."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError("must be NAME=VALUE")
    return name, value


def finite(number: float | None) -> float | None:
    """The number, which no range that has only one end keeps from being infinite or nan; raises BadParameter."""
    if number is None or math.isfinite(number):
        return number
    raise typer.BadParameter("must be a finite number")


Destination = Annotated[
    MqUri,
    typer.Argument(
        metavar="MQURI",
        parser=parser(MqUri.parse),
        help="SERVICE::Queues::NAME or SERVICE::Topics::NAME, such as demo::Topics::events.",
    ),
]
Destinations = Annotated[
    list[Any],
    typer.Argument(
        metavar="MQURI...",
        parser=parser(MqUri.parse),
        help="SERVICE::Queues::NAME or SERVICE::Topics::NAME; several come on one stream.",
    ),
]
Url = Annotated[
    str,
    typer.Option(metavar="URL", envvar="MQ_GATEWAY_URL", parser=parser(check_url), help="Where the gateway is."),
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        envvar="MQ_GATEWAY_TOKEN",
        parser=parser(check_token),
        show_default=False,
        help="API token or JWT; better in the variable, where other users of the machine cannot see it.",
    ),
]

Service = Annotated[
    str | None, typer.Argument(metavar="SERVICE", help="Only this one, with its destinations.", show_default=False)
]


Body = Annotated[str | None, typer.Argument(metavar="BODY|-", help="The message; - or nothing reads standard input.")]
ContentType = Annotated[str | None, typer.Option(metavar="TYPE", help="Such as application/json.")]
Headers = Annotated[
    list[Any] | None,
    typer.Option(metavar="NAME=VALUE", parser=parser(key_value), help="Header of the message; may be repeated."),
]
Batch = Annotated[
    typer.FileBinaryRead | None,
    typer.Option(
        metavar="FILE|-", show_default=False, help="Publish each line, a JSON message; - reads standard input."
    ),
]
Atomic = Annotated[bool, typer.Option("--atomic", help="With --batch: all of at most 1000 messages, or none.")]
Persistent = Annotated[
    bool | None, typer.Option("--persistent/--no-persistent", help="Whether it survives the broker's restart.")
]
TtlMs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Milliseconds after which the broker drops it.")]
Priority = Annotated[int | None, typer.Option(min=0, max=9, metavar="N", help="0 (lowest) to 9.")]
CorrelationId = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Tells a consumer what the message belongs to.")
]
ConfirmBy = Annotated[Confirm, typer.Option(help="receipt: wait for the broker; none: only until it is handed over.")]
Timeout = Annotated[
    float | None,
    typer.Option(min=0.001, callback=finite, metavar="SECONDS", help="How long to wait for the broker.  [default: 5]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")]


Shape = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="data: the message; envelope: with its headers, as one JSON object; cloudevents: a CloudEvent."
        "  [default: data, envelope of several]",
    ),
]
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many messages.")]
From = Annotated[Start | None, typer.Option("--from", help="Of a Topic: what comes from now on, or also what is kept.")]
LastEventId = Annotated[str | None, typer.Option(metavar="ID", help="Of a Topic: go on after this event.")]
EventsAsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line: event, id, data.")]


Subscription = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a Topic: its durable subscription to take from.")
]
Most = Annotated[
    int | None,
    typer.Option("--max", min=0, metavar="N", help="Take so many messages; 0 is --follow.  [default: 1]"),
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Take messages until Ctrl-C or SIGTERM; come back when the gateway was away.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=finite,
        metavar="SECONDS",
        help="How long to wait for each message, unless with --follow.  [default: 20]",
    ),
]
Lease = Annotated[
    float,
    typer.Option(
        min=1, callback=finite, metavar="SECONDS", help="When it comes again if we die; renewed while the work goes on."
    ),
]
Exec = Annotated[
    str | None,
    typer.Option(
        "--exec",
        metavar="COMMAND",
        help="Run by /bin/sh, with the message on its standard input, MQ_MESSAGE_ID and MQ_REDELIVERED. Exit code 0:"
        " done; 65: refused for good; any other: back to the queue.",
    ),
]
Delay = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=finite,
        metavar="SECONDS",
        help="With --exec: how long what failed stays away from the queue.  [default: 1]",
    ),
]
EnvelopesAsJson = Annotated[
    bool, typer.Option("--json", help="The message as one JSON object on a line, with its headers.")
]


def number_wanted(most: int | None, *, follow: bool, wait: float | None) -> int | None:
    """How many messages are taken, None for ever; raises BadParameter where options contradict each other."""
    if follow and most:
        raise typer.BadParameter("--max and --follow exclude each other")
    if not (follow or most == 0):
        return 1 if most is None else most
    if wait is not None:
        raise typer.BadParameter("--wait and --follow exclude each other")
    return None


def read_body(argument: str | None, batch: object = None, *, atomic: bool = False) -> bytes:
    """The message: the argument as it stands, or standard input; raises BadParameter. None where there is a batch."""
    if atomic and batch is None:
        raise typer.BadParameter("--atomic goes with --batch only")
    if batch is not None:
        if argument is not None:
            raise typer.BadParameter("BODY and --batch exclude each other")
        return b""
    if argument is not None and argument != "-":
        return os.fsencode(argument)
    if argument is None and sys.stdin.isatty():
        raise typer.BadParameter("BODY is missing; - reads standard input")
    body = sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise typer.BadParameter(f"standard input has more than {MAX_BODY_BYTES} bytes")
    return body


def to_headers(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Headers by name; raises BadParameter where one is given twice, in whatever case."""
    headers = dict(pairs)
    if len({name.lower() for name in headers}) != len(pairs):
        raise typer.BadParameter("a header is given twice")
    return headers
