"""What differs between brokers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.settings import QueueSettings, TopicSettings
from app.connectors.base import Destination
from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.dialect import Dialect, line_bytes
from app.connectors.stomp.frames import Frame, encode
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.connectors.stomp.recognise import recognise
from app.domain.errors import BodyTooLarge, InvalidHeader, InvalidName, NotSupportedByBroker
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri, check_name
from tests import stomp_frames
from tests.unit.connectors.stomp.samples import publication, queue, topic

NOW = 1_700_000_000.5


# Destinations.


@pytest.mark.parametrize(
    ("dialect", "destination", "path"),
    [
        (Dialect(), queue(), "/queue/jobs"),
        (Dialect(), topic(), "/topic/status"),
        (ActiveMQ(), queue("a/b"), "/queue/a/b"),
        (ActiveMQ(), queue("amq.x"), "/queue/amq.x"),
        (RabbitMQ(), queue("a/b"), "/queue/a%2Fb"),
        (RabbitMQ(), topic("a/b"), "/topic/a%2Fb"),
        (RabbitMQ(), queue("a/b", declare=False), "/amq/queue/a%2Fb"),
        (RabbitMQ(), queue("amq.x", declare=False), "/amq/queue/amq.x"),
        (RabbitMQ(), topic("amq.x"), "/topic/amq.x"),
        (RabbitMQ(), topic("a", declare=False), "/topic/a"),
        (RabbitMQ(), queue("amq.x", destination="/exchange/logs/app.#"), "/exchange/logs/app.#"),
        (ActiveMQ(), queue(destination="/queue/a?x=1"), "/queue/a?x=1"),
    ],
)
def test_paths(dialect: Dialect, destination: Destination, path: str) -> None:
    assert dialect.path(destination) == path


@pytest.mark.parametrize("name", ["a%2Fb", "a%2fb", "%2F"])
def test_a_literal_percent_2f_would_be_another_queue(name: str) -> None:
    with pytest.raises(InvalidName, match="%2F"):
        RabbitMQ().check_name(MqUri.parse(f"s::Queues::{name}"))
    ActiveMQ().check_name(MqUri.parse(f"s::Queues::{name}"))


@pytest.mark.parametrize("name", [" a", "a ", "\u00a0a", " "])
def test_white_space_at_the_ends_would_be_another_queue(name: str) -> None:
    for dialect in (Dialect(), ActiveMQ(), Artemis()):
        with pytest.raises(InvalidName, match="white space"):
            dialect.check_name(MqUri.parse(f"s::Queues::{name}"))
    RabbitMQ().check_name(MqUri.parse(f"s::Queues::{name}"))


@pytest.mark.parametrize(
    ("dialect", "path", "uri"),
    [
        (Dialect(), "/queue/a", "s::Queues::a"),
        (ActiveMQ(), "/topic/a/b", "s::Topics::a/b"),
        (RabbitMQ(), "/queue/a%2Fb", "s::Queues::a/b"),
        (RabbitMQ(), "/queue/", None),
        (RabbitMQ(), "/reply-queue/amq.gen-1", None),
        (ActiveMQ(), "/remote-temp-queue/ID:1", None),
        (ActiveMQ(), "/queue/a,b", None),
        (ActiveMQ(), "/queue/a?x=1", None),
        (ActiveMQ(), "/queue/a::b", None),
        (Dialect(), "queue/a", None),
        (Dialect(), "", None),
    ],
)
def test_the_mq_uri_behind_a_path(dialect: Dialect, path: str, uri: str | None) -> None:
    found = dialect.uri_of("s", path)
    assert (None if found is None else str(found)) == uri


@given(st.from_regex(r"[a-z/:.%]{1,20}", fullmatch=True).filter(lambda name: "::" not in name and "%2f" not in name))
def test_a_name_comes_back_as_it_went(name: str) -> None:
    for dialect in (Dialect(), RabbitMQ(), ActiveMQ()):
        uri = MqUri.parse(f"s::Topics::{name}")
        assert dialect.uri_of("s", dialect.path(Destination(uri, TopicSettings()))) == uri
    assert "/" not in RabbitMQ().quote(name)


def _taken(dialect: Dialect, name: str) -> MqUri | None:
    uri = MqUri("s", DestinationType.QUEUES, name)
    try:
        check_name(name)
        dialect.check_name(uri)
    except InvalidName:
        return None
    return uri


_ANY_NAME = st.text(min_size=1, max_size=20) | st.text("%2Ff/: aé\\", min_size=1, max_size=8)


@given(_ANY_NAME, _ANY_NAME)
def test_no_two_names_are_one_destination(first: str, second: str) -> None:
    for dialect in (Dialect(), RabbitMQ(), ActiveMQ(), Artemis()):
        uris = [uri for uri in (_taken(dialect, first), _taken(dialect, second)) if uri is not None]
        paths = [dialect.path(Destination(uri, QueueSettings(declare=True))) for uri in uris]
        assert len(set(paths)) == len(set(uris))
        for uri, path in zip(uris, paths, strict=True):
            assert dialect.unquote(dialect.quote(uri.name)) == uri.name
            assert dialect.uri_of("s", path) == uri
            assert not set(path) & set(",*#>?\r\n\0")
            # A slash beyond the prefix would name an exchange or another kind of destination.
            assert dialect.name != "RabbitMQ" or path.count("/") == 2


# Frames.


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)


def _full() -> Publication:
    return publication(
        headers={"JobID": "1"},
        correlation_id="c",
        type="t",
        priority=0,
        persistent=True,
        ttl_ms=1500,
        reply_to=MqUri.parse("s::Queues::a/b"),
    )


COMMON = {
    "JobID": "1",
    "mq-message-id": "m-1",
    "correlation-id": "c",
    "type": "t",
    "priority": "0",
    "persistent": "true",
}


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(
    ("dialect", "own"),
    [
        (Dialect(), {"expires": "1700000002000", "reply-to": "/queue/a/b"}),
        (ActiveMQ(), {"expires": "1700000002000", "reply-to": "/queue/a/b"}),
        (Artemis(), {"expires": "1700000002000", "reply-to": "/queue/a/b"}),
        (RabbitMQ(), {"expiration": "1500", "reply-to": "/queue/a%2Fb", "amqp-message-id": "m-1"}),
    ],
)
def test_the_typed_fields_in_each_brokers_words(dialect: Dialect, own: dict[str, str]) -> None:
    assert dialect.send_headers(_full(), own["reply-to"]) == {**COMMON, **own}


def test_what_was_not_asked_for_is_not_sent() -> None:
    assert Dialect().send_headers(publication()) == {"mq-message-id": "m-1"}
    assert RabbitMQ().send_headers(publication()) == {"mq-message-id": "m-1", "amqp-message-id": "m-1"}


def test_the_callers_headers_are_copied_and_never_win() -> None:
    own = {"mq-message-id": "forged", "a": "1"}
    assert Dialect().send_headers(publication(headers=own))["mq-message-id"] == "m-1"
    assert own == {"mq-message-id": "forged", "a": "1"}


@pytest.mark.parametrize(
    ("dialect", "field"),
    [
        (Dialect(), {"delay_ms": 1}),
        (Dialect(), {"group": "g"}),
        (RabbitMQ(), {"delay_ms": 1}),
        (RabbitMQ(), {"group": "g"}),
    ],
)
def test_what_a_broker_has_no_word_for_is_refused(dialect: Dialect, field: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedByBroker, match=dialect.name):
        dialect.send_headers(publication(**field))


def test_delay_and_group_in_the_words_of_each_broker() -> None:
    wish = publication(delay_ms=1500, group="g")
    for dialect in (ActiveMQ(), Artemis()):
        asked = dialect.send_headers(wish)
        assert (asked["AMQ_SCHEDULED_DELAY"], asked["JMSXGroupID"]) == ("1500", "g")


def test_queue_arguments_are_rabbitmqs() -> None:
    quorum = queue(arguments={"x-queue-type": "quorum"})
    assert RabbitMQ().declare_headers(quorum) == {"x-queue-type": "quorum"}
    assert RabbitMQ().subscribe_headers(quorum, 5) == {"x-queue-type": "quorum", "prefetch-count": "5"}
    assert RabbitMQ().subscribe_headers(quorum, None) == {"x-queue-type": "quorum"}
    assert ActiveMQ().declare_headers(quorum) == {}
    assert ActiveMQ().subscribe_headers(quorum, 5) == {"activemq.prefetchSize": "5"}
    assert Artemis().declare_headers(quorum) == {}
    assert Dialect().subscribe_headers(topic(), None) == {}


# Limits.

ESCAPED = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from(":\\"), max_size=60)


def _frame_bytes(path: str, headers: dict[str, str], publication: Publication) -> int:
    """What really goes out, with the largest receipt id there will ever be."""
    every = {
        **headers,
        "destination": path,
        "content-type": publication.content_type,
        "content-length": str(len(publication.body)),
        "receipt": "r" + "9" * 15,
    }
    escaped = {name: stomp_frames._escape(value) for name, value in every.items()}
    return len(encode(Frame("SEND", escaped, publication.body)))


@given(
    ESCAPED, st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), ESCAPED, max_size=4), st.binary(max_size=99)
)
def test_no_frame_above_the_brokers_limit_passes(path: str, headers: dict[str, str], body: bytes) -> None:
    sent = publication(body, content_type='a/b; c=":::::::::::::::::::::::::::::::::::::::::::::::::::::"')
    size = _frame_bytes(path, headers, sent)
    with pytest.raises(BodyTooLarge):
        recognise("RabbitMQ/4.0", size - 1).check_frame(path, headers, sent)
    recognise("RabbitMQ/4.0", size + 128).check_frame(path, headers, sent)
    recognise("RabbitMQ/3.10.8").check_frame(path, headers, sent)


@given(ESCAPED)
def test_a_line_is_measured_as_it_is_encoded(value: str) -> None:
    assert line_bytes("name", value) == len(f"name:{stomp_frames._escape(value)}\n".encode())


@pytest.mark.parametrize(("dialect", "limit"), [(Dialect(), 10240), (ActiveMQ(), 10240), (RabbitMQ(), 102_400)])
def test_a_header_line_the_broker_would_not_read_is_refused(dialect: Dialect, limit: int) -> None:
    colons = (limit - len("JobID:\n")) // 2
    dialect.check_frame("/queue/a", {"JobID": ":" * colons}, publication())
    with pytest.raises(InvalidHeader, match=f"this broker takes {limit}") as caught:
        dialect.check_frame("/queue/a", {"JobID": ":" * (colons + 1)}, publication())
    assert caught.value.errors[0].where == "JobID"


@pytest.mark.parametrize("name", ["correlation-id", "type", "reply-to", "app-id", "amqp-message-id"])
def test_a_property_of_amqp_has_255_bytes(name: str) -> None:
    RabbitMQ().check_frame("/queue/a", {name: "é" * 127 + "x"}, publication())
    with pytest.raises(InvalidHeader, match="255 bytes") as caught:
        RabbitMQ().check_frame("/queue/a", {name: "é" * 128}, publication())
    assert caught.value.errors[0].where == name
    ActiveMQ().check_frame("/queue/a", {name: "é" * 128}, publication())


@pytest.mark.parametrize(
    ("dialect", "headers", "expected"),
    [
        (Dialect(), {"mq-message-id": "ours", "message-id": "broker"}, "ours"),
        (Dialect(), {"message-id": "broker", "amqp-message-id": "amqp"}, "broker"),
        (Dialect(), {}, ""),
        (RabbitMQ(), {"mq-message-id": "ours", "amqp-message-id": "amqp", "message-id": "broker"}, "ours"),
        (RabbitMQ(), {"amqp-message-id": "amqp", "message-id": "broker"}, "amqp"),
        (RabbitMQ(), {"message-id": "broker"}, "broker"),
        (RabbitMQ(), {}, ""),
    ],
)
def test_message_ids(dialect: Dialect, headers: dict[str, str], expected: str) -> None:
    assert dialect.message_id(headers) == expected


# Durable subscriptions.


def kept(name: str = "alerts", **settings: Any) -> Destination:
    return replace(topic(name, subscriptions=["archiver"], **settings), subscription="archiver")


@pytest.mark.parametrize(
    ("dialect", "destination", "path"),
    [
        (RabbitMQ(), kept(), "/amq/queue/alerts::archiver"),
        (RabbitMQ(), kept("a/b"), "/amq/queue/a%2Fb::archiver"),
        (RabbitMQ(), kept(destination="/exchange/logs/app.#"), "/amq/queue/alerts::archiver::4e7be5c5"),
        (ActiveMQ(), kept(), "/topic/alerts"),
        (ActiveMQ(), kept("VirtualTopic.a"), "/queue/Consumer.archiver.VirtualTopic.a"),
        (ActiveMQ(), kept(destination="/topic/VirtualTopic.a"), "/queue/Consumer.archiver.VirtualTopic.a"),
        (ActiveMQ(), topic("VirtualTopic.a"), "/topic/VirtualTopic.a"),
        (RabbitMQ(), topic(), "/topic/status"),
    ],
)
def test_what_is_consumed_from(dialect: Dialect, destination: Destination, path: str) -> None:
    assert dialect.source(destination) == path


def test_a_consumer_of_a_durable_subscription_declares_nothing() -> None:
    assert RabbitMQ().subscribe_headers(kept(arguments={"x-max-length": "9"}), 1) == {"prefetch-count": "1"}
    assert RabbitMQ().subscribe_headers(kept(), None) == {}
    assert ActiveMQ().subscribe_headers(kept("VirtualTopic.a"), 1) == {"activemq.prefetchSize": "1"}
    assert ActiveMQ().subscribe_headers(kept(), 0) == {
        "activemq.prefetchSize": "0",
        "activemq.subscriptionName": "alerts.archiver",
    }
    elsewhere = ActiveMQ().subscribe_headers(kept(destination="/topic/other"), 0)
    assert elsewhere["activemq.subscriptionName"] == "alerts.archiver.ee975d5b"


def test_who_shares_a_durable_subscription() -> None:
    assert RabbitMQ().is_shared(kept())
    assert ActiveMQ().is_shared(kept("VirtualTopic.a"))
    assert not ActiveMQ().is_shared(kept())
    assert ActiveMQ().is_shared(topic())


@pytest.mark.parametrize(
    ("dialect", "destination", "client_id"),
    [
        (Dialect(), kept(), "gateway"),
        (ActiveMQ(), kept(), None),
        (RabbitMQ(), kept(destination="/queue/x"), None),
        (RabbitMQ(), kept(destination="/amq/queue/x"), None),
    ],
)
def test_what_cannot_be_kept_is_refused(dialect: Dialect, destination: Destination, client_id: str | None) -> None:
    with pytest.raises(NotSupportedByBroker, match="subscriptions"):
        dialect.check_subscription(destination, client_id)


@pytest.mark.parametrize(
    ("dialect", "destination", "client_id"),
    [
        (RabbitMQ(), kept(), None),
        (RabbitMQ(), kept(destination="/exchange/logs/app.#"), None),
        (ActiveMQ(), kept(), "gateway"),
        (ActiveMQ(), kept("VirtualTopic.a"), None),
    ],
)
def test_what_can_be_kept(dialect: Dialect, destination: Destination, client_id: str | None) -> None:
    dialect.check_subscription(destination, client_id)
