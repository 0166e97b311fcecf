"""The commands that talk to a running gateway. Exit codes: 0 done, 1 refused or failed, 2 usage."""

from __future__ import annotations

import json
import sys
from contextlib import closing

import typer

from app.client.arguments import (
    DEFAULT_URL,
    AsJson,
    Atomic,
    Batch,
    Body,
    Confirm,
    ConfirmBy,
    ContentType,
    CorrelationId,
    Count,
    Delay,
    Destination,
    Destinations,
    EnvelopesAsJson,
    EventsAsJson,
    Exec,
    Follow,
    Format,
    From,
    Headers,
    LastEventId,
    Lease,
    Most,
    Persistent,
    Priority,
    Service,
    Shape,
    Subscription,
    Timeout,
    Token,
    TtlMs,
    Url,
    Wait,
    number_wanted,
    read_body,
    to_headers,
)
from app.client.batching import in_words, publish_any, sentences
from app.client.connection import ClientError, Target
from app.client.following import Follower, Following
from app.client.handling import Command, Printing
from app.client.output import EventPrinter
from app.client.publishing import Outgoing
from app.client.receiving import LONGEST_WAIT, Receiver
from app.client.status import fetch
from app.client.status import in_words as status_in_words
from app.client.stopping import Stop
from app.client.taking import ANSWER_SECONDS, Source, Taker
from app.client.telling import REFUSED, notice, one_line_errors


def publish(
    destination: Destination,
    body: Body = None,
    *,
    content_type: ContentType = None,
    header: Headers = None,
    persistent: Persistent = None,
    ttl_ms: TtlMs = None,
    priority: Priority = None,
    correlation_id: CorrelationId = None,
    confirm: ConfirmBy = Confirm.RECEIPT,
    timeout: Timeout = None,
    batch: Batch = None,
    atomic: Atomic = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Publish a message, or each line of a file, through a running gateway, and wait until the broker has it.

    Example: mq-gateway publish demo::Topics::events '{"hello": "world"}' --content-type application/json
    """
    message = Outgoing(
        body=read_body(body, batch, atomic=atomic),
        content_type=content_type,
        headers=to_headers(header or []),
        persistent=persistent,
        ttl_ms=ttl_ms,
        priority=priority,
        correlation_id=correlation_id,
        confirm=confirm.value,
        timeout_seconds=timeout,
    )
    with one_line_errors(ClientError):
        answer = publish_any(Target(url, token), destination, message, batch, atomic=atomic)
    typer.echo(json.dumps(answer) if as_json else in_words(answer))
    for sentence in sentences(answer):
        notice(sentence)
    if answer.get("failures"):
        raise typer.Exit(REFUSED)


def subscribe(
    destinations: Destinations,
    *,
    form: Shape = None,
    count: Count = None,
    start: From = None,
    last_event_id: LastEventId = None,
    as_json: EventsAsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Print the messages of destinations as they come, until Ctrl-C.

    A lost connection is taken up again where it was; what could not be had again is told on standard error. From a
    Queue each message is taken: no other consumer gets it.
    """
    form = form or (Format.DATA if len(destinations) == 1 else Format.ENVELOPE)
    following = Following(uris=destinations, format=form.value, start=start, last_event_id=last_event_id)
    printer = EventPrinter(sys.stdout.buffer, notice, envelope=form is not Format.DATA, as_json=as_json)
    follower = Follower(Target(url, token), following, notice)
    try:
        with one_line_errors(ClientError), closing(follower.events()) as events:
            shown = 0
            for event in events:
                shown += printer.show(event)
                if shown == count:
                    return
    except KeyboardInterrupt:
        raise typer.Exit(0 if count is None else REFUSED) from None


def receive(
    destination: Destination,
    *,
    most: Most = None,
    follow: Follow = False,
    wait: Wait = None,
    subscription: Subscription = None,
    lease: Lease = 60,
    command: Exec = None,
    delay: Delay = None,
    as_json: EnvelopesAsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Take messages from a Queue, or a durable subscription of a Topic, and acknowledge each when it is done.

    It is done when it is printed or, with --exec, when the command ends with 0. What is not done comes again.

    Example: mq-gateway receive demo::Queues::jobs --follow --exec 'jq .JobID'
    """
    number = number_wanted(most, follow=follow, wait=wait)
    if delay is not None and command is None:
        raise typer.BadParameter("--delay goes with --exec only")
    source = Source(uri=destination, lease_seconds=lease, subscription=subscription, as_json=as_json)
    # One message is printed as it is; of several each ends its line, unless it is one already.
    printing = Printing(sys.stdout.buffer, b"" if as_json or number == 1 else b"\n")
    target, handle = Target(url, token), printing if command is None else Command(command, notice)
    wanted = LONGEST_WAIT if wait is None else wait
    try:
        with one_line_errors(ClientError), Stop() as stop, target.open(ANSWER_SECONDS) as client:
            taker = Taker(target, client, source)
            receiver = Receiver(taker, handle, notice, number=number, wait_seconds=wanted, delay_seconds=delay)
            good = receiver.run(stop)
    except KeyboardInterrupt:
        good = False
    if not good:
        raise typer.Exit(REFUSED)


def status(service: Service = None, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show what a running gateway is connected to, and how much went through.

    What is down is told, and is no failure of this command.
    """
    with one_line_errors(ClientError):
        answer = fetch(Target(url, token), service)
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else status_in_words(answer))
