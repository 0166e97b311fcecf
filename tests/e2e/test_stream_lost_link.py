"""A Topic with a stream over links that are closed again and again, on a RabbitMQ that nobody else uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.fixtures import Unique, private
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.run import Run
from tests.e2e.http_client import Event, Sse, eventually, post
from tests.e2e.live_gateway import running, write_config
from tests.e2e.test_stream_replay import _service

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def own_rabbitmq(run: Run) -> Iterator[RabbitMQ]:
    """Its connections are closed, which others would notice."""
    with private(RabbitMQ, run) as broker:
        yield broker


async def test_a_lost_link_is_no_gap(tmp_path: Path, unique: Unique, own_rabbitmq: RabbitMQ) -> None:
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    async with (
        running(write_config(tmp_path, {"mq": _service(topic, own_rabbitmq)})) as gateway,
        await Sse.open(gateway.port, f"{path}/events") as stream,
    ):
        for number in range(0, 9, 3):
            await _publish_surely(gateway.port, path, number, number + 1)
            before = (await gateway.link("mq"))["since"]
            await own_rabbitmq.close_connections()
            await gateway.until_link("mq", partial(_is_up_again, before))
            await _publish_surely(gateway.port, path, number + 2)
        events: list[Event] = []
        while len({event.data for event in events}) < 9:
            events += await stream.take(1)
        assert [event.id for event in events] == [f"s.{offset}" for offset in range(len(events))]
        assert list(dict.fromkeys(event.data for event in events)) == [str(number) for number in range(9)]


async def _publish_surely(port: int, path: str, *numbers: int) -> None:
    """What is unknown is published again: it was under way when its connection was closed."""
    for number in numbers:

        async def is_confirmed(text: str = str(number)) -> bool:
            return (await post(port, path, text)).status == 200

        await eventually(is_confirmed, f"{number} is confirmed")


def _is_up_again(before: str, view: dict[str, Any]) -> bool:
    return bool(view["link"] == "up" and view["since"] != before)
