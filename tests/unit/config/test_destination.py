"""Settings of Queues and Topics."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config.destination import QueueSettings, TopicSettings
from app.config.json_schema import JsonSchema


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


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a::b", "a>", "ü", "x" * 65])
def test_a_subscription_has_a_name_that_every_broker_takes(name: str) -> None:
    with pytest.raises(ValidationError, match="1 to 64 of"):
        TopicSettings(subscriptions=["fine", name])


def test_subscriptions_have_names_of_their_own() -> None:
    assert TopicSettings.model_validate({"subscriptions": "archiver, mail-er_2"}).subscriptions == [
        "archiver",
        "mail-er_2",
    ]
    with pytest.raises(ValidationError, match="twice"):
        TopicSettings(subscriptions=["a", "a"])


def test_what_the_broker_has_to_have_before_a_publish() -> None:
    assert not QueueSettings().is_backed
    assert not TopicSettings().is_backed
    assert TopicSettings(subscriptions=["a"]).is_backed
    assert TopicSettings(replay="stream").is_backed


def test_a_schema_is_read_with_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "jobs.schema.json"
    file.write_text('{"type": "object"}', encoding="utf-8")
    before = QueueSettings.model_validate({"schema": str(file)})
    assert before.schema_of_bodies == JsonSchema('{"type": "object"}')
    assert before == QueueSettings.model_validate({"schema": str(file)})
    file.write_text("{}", encoding="utf-8")
    assert before != QueueSettings.model_validate({"schema": str(file)})
    assert QueueSettings().schema_of_bodies is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_schema_that_is_none_is_refused_with_its_file(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "jobs.schema.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValidationError, match=r"jobs\.schema\.json"):
        QueueSettings.model_validate({"schema": str(file)})


def test_a_schema_needs_bodies_that_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "jobs.schema.json"
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValidationError, match="exclude each other"):
        QueueSettings.model_validate({"schema": str(file), "check_json": False})


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
