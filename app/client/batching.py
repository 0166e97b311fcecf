"""Publishing many messages through a gateway: lines go out as they are read, one report comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import httpx

from app.client.connection import ClientError, Target, parse_object, printable, read_answer, refusal
from app.client.publishing import GATEWAY_SECONDS, Outgoing, one_try, publish
from app.domain.uri import MqUri

LINES = "application/x-ndjson"
#: Seconds without progress after which the gateway is given up: it reads no further while its broker is slow.
PATIENCE_SECONDS = 60.0
#: Bytes that are read from a file at once.
PIECE_BYTES = 64 << 10
#: Failures (count) that are told one by one.
MAX_TOLD = 10


def publish_any(
    target: Target, uri: MqUri, message: Outgoing, lines: BinaryIO | None, *, atomic: bool
) -> dict[str, Any]:
    """Publish the message, or each of `lines`; the answer or the report. Raises ClientError."""
    return publish(target, uri, message) if lines is None else publish_lines(target, uri, lines, message, atomic=atomic)


def publish_lines(
    target: Target, uri: MqUri, lines: BinaryIO, message: Outgoing, *, atomic: bool = False
) -> dict[str, Any]:
    """Publish each line; what `message` says beside its body holds for all. Returns the report, whatever it says.

    Raises ClientError where the gateway has none.
    """
    waits = GATEWAY_SECONDS if message.timeout_seconds is None else message.timeout_seconds
    headers = replace(message, content_type=message.content_type or LINES).request_headers()
    params = message.parameters() | ({"atomic": "true"} if atomic else {})
    with (
        one_try(target, waits + PATIENCE_SECONDS, "the messages") as client,
        client.stream(
            "POST", target.resource(uri, "batch"), content=_pieces(lines), headers=headers, params=params
        ) as response,
    ):
        return _report(response)


def _pieces(lines: BinaryIO) -> Iterator[bytes]:
    while piece := lines.read(PIECE_BYTES):
        yield piece


def _report(response: httpx.Response) -> dict[str, Any]:
    body = read_answer(response)
    report = parse_object(body)
    if "failures" in report:
        return report
    if response.is_success:
        raise ClientError(f"{response.status_code}: not an answer of mq-gateway")
    raise refusal(response, body)


def in_words(answer: dict[str, Any]) -> str:
    """One line for the answer to a publish, or the report of a batch."""
    if "message_id" in answer:
        return f"{'confirmed' if answer.get('confirmed') else 'handed over'} {answer['message_id']}"
    outcomes = answer.get("outcomes") or {}
    return printable(", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())) or "no messages"


def sentences(report: dict[str, Any]) -> Iterator[str]:
    """What went wrong, for a person."""
    failures = [failure for failure in report.get("failures", ()) if isinstance(failure, dict)]
    for failure in failures[:MAX_TOLD]:
        words = (failure.get(name) for name in ("index", "outcome", "code", "detail"))
        yield printable("message {}: {}: {}: {}".format(*words))
    others = len(failures) - MAX_TOLD
    if others > 0 or report.get("failures_omitted"):
        yield f"and {max(0, others) + int(report.get('failures_omitted') or 0)} more"
