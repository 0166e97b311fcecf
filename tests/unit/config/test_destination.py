"""Settings of Queues and Topics."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config.destination import QueueSettings, TopicSettings


def test_queues_are_persistent_and_topics_are_not() -> None:
    assert QueueSettings().persistent
    assert not TopicSettings().persistent


def test_defaults_of_the_contract() -> None:
    topic = TopicSettings()
    assert (topic.replay, topic.ring_messages, topic.ring_bytes) == ("ring", 1024, 8 << 20)
    assert (topic.linger, topic.keep, topic.slow, topic.prefetch) == (30, False, "gap", 10)
    assert not topic.acknowledgement
    assert topic.declare
    assert topic.check_json


def test_arguments_and_a_destination_exclude_each_other() -> None:
    arguments = {"x-queue-type": "quorum"}
    assert QueueSettings(arguments=arguments).arguments == arguments
    assert QueueSettings(destination="/exchange/logs/app.#").destination == "/exchange/logs/app.#"
    with pytest.raises(ValidationError, match="exclude each other"):
        QueueSettings(arguments=arguments, destination="/queue/x")


@pytest.mark.parametrize(
    "option",
    [{"subscriptions": ["a"]}, {"schema": "x"}],
)
def test_later_options_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="not supported in this version"):
        TopicSettings.model_validate(option)


def test_a_topic_with_a_stream_behind_it() -> None:
    known = TopicSettings.model_validate({"replay": "stream", "stream": "alerts-stream", "stream_max_age": "7D"})
    assert known.is_stream
    assert (known.stream, known.stream_max_age) == ("alerts-stream", "7D")
    assert TopicSettings.model_validate({"replay": "stream"}).stream is None
    assert not TopicSettings().is_stream
    assert not QueueSettings().is_stream


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stream": "s"}, "need `replay: stream`"),
        ({"stream_max_age": "7D"}, "need `replay: stream`"),
        ({"replay": "stream", "destination": "/exchange/x/y"}, "without `destination`"),
        ({"replay": "stream", "arguments": {"x-max-age": "1D"}}, "without `destination` and `arguments`"),
        ({"replay": "stream", "stream": "amq.x"}, "RabbitMQ's own"),
        ({"replay": "stream", "stream": "a\nb"}, "a broker may take for more"),
        ({"replay": "stream", "stream_max_age": "7"}, "should match pattern"),
        ({"replay": "stream", "stream_max_age": "1 week"}, "should match pattern"),
        ({"replay": "stream", "stream_max_age": "7D\n"}, "should match pattern"),
    ],
)
def test_what_a_stream_cannot_be(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TopicSettings.model_validate(options)


@pytest.mark.parametrize("option", [{"prefetch": 0}, {"ring_messages": 0}, {"linger": -1}, {"slow": "stop"}])
def test_senseless_values_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TopicSettings.model_validate(option)
