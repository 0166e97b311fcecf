"""One consumer over one and several connections."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

import pytest

from app.config.settings import QueueSettings, TopicSettings
from app.connectors.base import Delivery, Destination
from app.connectors.stomp import subscription
from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.subscription import StompSubscription
from app.domain.errors import BrokerRejected
from app.domain.uri import MqUri
from tests.unit.connectors.stomp.fake_session import FakeSession

QUEUE = Destination(MqUri.parse("s::Queues::jobs"), QueueSettings(arguments={"x-queue-type": "quorum"}))
TOPIC = Destination(MqUri.parse("s::Topics::status"), TopicSettings())


class Told:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.words: list[str] = []

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_lost(self) -> None:
        self.words.append("lost")

    def on_restored(self) -> None:
        self.words.append("restored")

    def on_withdrawn(self, token: str) -> None:
        self.words.append(f"withdrawn: {token}")

    def on_cancelled(self, detail: str) -> None:
        self.words.append(f"cancelled: {detail}")


class Bench:
    """A subscription on a session, both as in real life but for the socket."""

    def __init__(
        self, destination: Destination = QUEUE, dialect: Dialect | None = None, *, patience: float | None = None
    ) -> None:
        self.told = Told()
        self.ended: list[StompSubscription] = []
        self.session = FakeSession(dialect=dialect)
        self.returns = Returns(self.session)
        self.subscription = StompSubscription(
            destination,
            self.told,
            acknowledge=destination is QUEUE,
            prefetch=5,
            patience=patience,
            on_end=self.ended.append,
            spawn=asyncio.ensure_future,
        )

    async def establish(self) -> str:
        """Subscribe; the id under which the broker knows it."""
        task = asyncio.ensure_future(self.subscription.establish(self.session, self.returns))
        await asyncio.sleep(0)
        self.session.confirm("SUBSCRIBE")
        await task
        return str(self.session.last("SUBSCRIBE")["id"])

    def message(self, number: int = 1, headers: Mapping[str, str] | None = None) -> str:
        """A MESSAGE comes in; its ack id."""
        subscription = self.session.last("SUBSCRIBE")["id"]
        token = f"T_{subscription}@@session-x@@{number}"
        known = {"subscription": subscription, "message-id": token, "ack": token}
        self.session.receive("MESSAGE", {**known, **(headers or {})}, b"body")
        return token


async def _turn(times: int = 3) -> None:
    """Let tasks that can run do so."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_subscribes_with_the_dialects_headers_and_waits_for_the_receipt() -> None:
    bench = Bench()
    assert await bench.establish() == "1-1"
    sent = bench.session.last("SUBSCRIBE")
    assert sent["destination"] == "/queue/jobs"
    assert (sent["ack"], sent["prefetch-count"], sent["x-queue-type"]) == ("client-individual", "5", "quorum")
    assert "/queue/jobs" in bench.session.declared


async def test_a_topic_is_taken_as_delivered() -> None:
    bench = Bench(TOPIC)
    await bench.establish()
    sent = bench.session.last("SUBSCRIBE")
    assert sent["ack"] == "auto"
    assert "prefetch-count" not in sent
    bench.message()
    (delivery,) = bench.told.deliveries
    assert not bench.subscription.ack(delivery)
    assert not bench.subscription.nack(delivery)
    assert bench.session.commands() == ["SUBSCRIBE"]


async def test_a_cancelled_attempt_leaves_no_receipt_behind() -> None:
    bench = Bench()
    task = asyncio.ensure_future(bench.subscription.establish(bench.session, bench.returns))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.session.confirms) == 0


async def test_a_message_is_the_producers_words() -> None:
    bench = Bench()
    await bench.establish()
    known = MqUri.parse("s::Queues::a/b")
    bench.session.known_paths["/queue/a%2Fb"] = known
    own = {"JobID": "1", "reply-to": "/queue/a%2Fb"}
    transport = {"redelivered": "true", "destination": "/queue/jobs", "mq-message-id": "m-1"}
    bench.message(headers={**own, **transport, "content-type": "text/plain"})
    (delivery,) = bench.told.deliveries
    message = delivery.message
    assert (message.message_id, message.body, message.content_type) == ("m-1", b"body", "text/plain")
    assert message.headers == {"JobID": "1", "reply-to": str(known)}
    assert message.redelivered
    assert message.mq_uri == QUEUE.uri
    assert delivery.epoch == 1


async def test_what_is_not_said_is_not_made_up() -> None:
    bench = Bench()
    await bench.establish()
    token = bench.message(headers={"reply-to": "/temp-queue/x", "redelivered": "false"})
    message = bench.told.deliveries[0].message
    assert (message.message_id, message.content_type, message.redelivered) == (token, None, False)
    assert message.headers == {"reply-to": "/temp-queue/x"}


async def test_an_ack_goes_out_once() -> None:
    bench = Bench()
    await bench.establish()
    token = bench.message()
    (delivery,) = bench.told.deliveries
    assert bench.subscription.ack(delivery)
    assert not bench.subscription.ack(delivery)
    assert not bench.subscription.nack(delivery)
    assert bench.session.commands() == ["SUBSCRIBE", "ACK"]
    assert bench.session.last("ACK")["id"] == token


async def test_a_nack_on_rabbitmq_puts_one_message_back() -> None:
    bench = Bench()
    await bench.establish()
    bench.message(1)
    bench.message(2)
    first, second = bench.told.deliveries
    assert bench.subscription.nack(first)
    assert not bench.subscription.nack(first)
    assert bench.session.last("NACK")["requeue"] == "true"
    assert bench.subscription.ack(second)


async def test_a_nack_where_it_means_the_dead_letter_queue_opens_the_subscription_anew() -> None:
    bench = Bench(dialect=ActiveMQ("ActiveMQ/5.17.2"))
    old = await bench.establish()
    bench.message(1)
    other = bench.message(2)
    first, second = bench.told.deliveries
    assert bench.subscription.nack(first)
    assert bench.session.commands() == ["SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"]
    assert bench.session.last("UNSUBSCRIBE")["id"] == old
    again = bench.session.last("SUBSCRIBE")
    assert again["id"] != old
    assert (again["ack"], again["activemq.prefetchSize"]) == ("client-individual", "5")
    assert not bench.subscription.ack(second)  # it comes again
    bench.session.confirm("UNSUBSCRIBE")
    bench.session.confirm("SUBSCRIBE")
    await _turn()
    bench.message(3)
    assert bench.subscription.ack(bench.told.deliveries[-1])
    assert bench.told.words == [f"withdrawn: {other}"]


async def test_a_refusal_to_open_it_anew_cancels() -> None:
    bench = Bench(dialect=ActiveMQ("ActiveMQ/5.17.2"))
    await bench.establish()
    bench.message()
    bench.subscription.nack(bench.told.deliveries[0])
    bench.session.receive("ERROR", {"receipt-id": bench.session.last("SUBSCRIBE")["receipt"], "message": "denied"})
    await _turn()
    assert bench.ended == [bench.subscription]
    assert "denied" in bench.told.words[0]


async def test_a_lost_connection_while_opening_anew_cancels_nothing() -> None:
    bench = Bench(dialect=ActiveMQ("ActiveMQ/5.17.2"))
    await bench.establish()
    bench.message()
    bench.subscription.nack(bench.told.deliveries[0])
    bench.session.lose()
    bench.subscription.lost()
    await _turn()
    assert bench.told.words == ["lost"]
    assert bench.ended == []


async def test_nothing_of_one_connection_reaches_the_next() -> None:
    bench = Bench()
    await bench.establish()
    bench.message()
    (old,) = bench.told.deliveries
    bench.subscription.lost()
    assert not bench.subscription.ack(old)
    bench.session = FakeSession(epoch=2)
    bench.returns = Returns(bench.session)
    task = asyncio.ensure_future(bench.subscription.restore(bench.session, bench.returns))
    await asyncio.sleep(0)
    bench.session.confirm("SUBSCRIBE")
    await task
    assert bench.session.last("SUBSCRIBE")["id"] == "2-1"
    assert not bench.subscription.ack(old)
    assert not bench.subscription.nack(old)
    assert bench.session.commands() == ["SUBSCRIBE"]
    bench.message()
    assert bench.subscription.ack(bench.told.deliveries[-1])
    assert bench.told.words == ["lost", "restored"]


async def test_a_refused_restore_raises_and_tells_nobody_it_worked() -> None:
    bench = Bench()
    task = asyncio.ensure_future(bench.subscription.restore(bench.session, bench.returns))
    await asyncio.sleep(0)
    bench.session.receive("ERROR", {"receipt-id": bench.session.last("SUBSCRIBE")["receipt"], "message": "denied"})
    with pytest.raises(BrokerRejected):
        await task
    bench.subscription.cancelled("denied")
    assert bench.told.words == ["cancelled: denied"]
    assert bench.ended == [bench.subscription]


async def test_the_broker_ends_a_subscription() -> None:
    bench = Bench()
    name = await bench.establish()
    bench.message()
    bench.session.receive("ERROR", {"subscription": name, "message": "queue deleted"})
    assert bench.told.words == ["cancelled: queue deleted"]
    assert bench.ended == [bench.subscription]
    assert not bench.subscription.ack(bench.told.deliveries[0])
    await bench.subscription.close(5)
    assert bench.session.commands() == ["SUBSCRIBE"]


async def _close(bench: Bench) -> asyncio.Future[None]:
    task = asyncio.ensure_future(bench.subscription.close(5))
    await _turn()
    return task


async def test_closing_unsubscribes_once_and_answers_nothing_afterwards() -> None:
    bench = Bench(dialect=ActiveMQ("ActiveMQ/5.17.2"))
    await bench.establish()
    bench.message()
    task = await _close(bench)
    await bench.subscription.close(5)
    assert not bench.subscription.ack(bench.told.deliveries[0])
    assert not bench.subscription.nack(bench.told.deliveries[0])
    bench.session.confirm("UNSUBSCRIBE")
    await task
    assert not bench.subscription.ack(bench.told.deliveries[0])
    assert bench.session.commands() == ["SUBSCRIBE", "UNSUBSCRIBE"]
    assert bench.ended == [bench.subscription]
    bench.message()
    assert bench.session.told == ["message_without_subscription"]


async def test_closing_on_rabbitmq_gives_back_what_is_unacked_also_what_was_under_way() -> None:
    bench = Bench()
    await bench.establish()
    for number in (1, 2):
        bench.message(number)
    assert bench.subscription.ack(bench.told.deliveries[0])
    task = await _close(bench)
    bench.message(3)
    assert len(bench.told.deliveries) == 2  # what comes now is given back and shown to nobody
    bench.session.confirm("UNSUBSCRIBE")
    await _turn()
    bench.session.confirm("SUBSCRIBE")
    await _turn()
    bench.session.confirm("NACK")
    await task
    returned = [frame.headers["id"] for frame in bench.session.sent if frame.cmd == "NACK"]
    assert [token.rpartition("@@")[2] for token in returned] == ["2", "3"]


async def test_closing_a_topic_on_rabbitmq_gives_nothing_back() -> None:
    bench = Bench(TOPIC)
    await bench.establish()
    task = await _close(bench)
    bench.session.confirm("UNSUBSCRIBE")
    await task
    assert bench.session.commands() == ["SUBSCRIBE", "UNSUBSCRIBE"]


async def test_closing_has_a_deadline() -> None:
    bench = Bench()
    await bench.establish()
    bench.message()
    task = asyncio.ensure_future(bench.subscription.close(0))
    await _turn()
    await task
    assert bench.session.commands() == ["SUBSCRIBE", "UNSUBSCRIBE"]
    # The caller has gone; what is unacked goes back all the same as soon as the broker answers.
    bench.session.confirm("UNSUBSCRIBE")
    await _turn()
    bench.session.confirm("SUBSCRIBE")
    await _turn()
    assert bench.session.commands()[-1] == "NACK"
    bench.session.confirm("NACK")
    await _turn(10)
    assert bench.session.aborted == []


async def test_an_end_that_is_never_confirmed_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "END_DEADLINE", 0.01)
    bench = Bench()
    await bench.establish()
    await (await _close(bench))
    assert len(bench.session.aborted) == 1


async def test_the_epoch_decides_and_not_the_token_alone() -> None:
    bench = Bench(dialect=ActiveMQ("ActiveMQ/5.17.2"))
    await bench.establish()
    bench.message()
    (old,) = bench.told.deliveries
    stranger = dataclasses.replace(old, epoch=old.epoch + 1)
    assert not bench.subscription.ack(stranger)
    assert bench.subscription.ack(old)


async def test_closing_while_the_connection_breaks_is_no_error() -> None:
    bench = Bench()
    await bench.establish()
    task = await _close(bench)
    bench.session.lose()
    await task
    bench.message()
    assert bench.session.told == ["message_without_subscription"]


async def test_closing_without_a_connection_sends_nothing_and_comes_never_back() -> None:
    bench = Bench()
    await bench.establish()
    bench.subscription.lost()
    await bench.subscription.close(5)
    await bench.subscription.restore(FakeSession(epoch=2), bench.returns)
    assert bench.session.commands() == ["SUBSCRIBE"]
    assert bench.told.words == ["lost"]


async def test_closing_on_a_connection_that_just_ended_sends_nothing() -> None:
    bench = Bench()
    await bench.establish()
    bench.session.lose()
    await bench.subscription.close(5)
    assert bench.session.commands() == ["SUBSCRIBE"]


async def test_behaviour_38_what_waits_too_long_goes_back_before_the_broker_loses_patience() -> None:
    bench = Bench(patience=0.05)
    await bench.establish()
    answered, late = bench.message(1), bench.message(2)
    first, second = bench.told.deliveries
    assert bench.subscription.ack(first)
    await asyncio.sleep(0.1)
    assert bench.session.last("NACK") == {"id": late, "requeue": "true"}
    assert bench.session.commands().count("NACK") == 1
    assert bench.told.words == [f"withdrawn: {late}"]
    assert bench.session.told == ["delivery_withdrawn"]
    assert not bench.subscription.ack(second)
    assert bench.session.last("ACK")["id"] == answered


@pytest.mark.parametrize("end", ["lost", "closing"])
async def test_nothing_is_withdrawn_where_everything_goes_back_anyhow(end: str) -> None:
    bench = Bench(patience=0.05)
    await bench.establish()
    bench.message()
    closing = None
    if end == "lost":
        bench.session.lose()
        bench.subscription.lost()
    else:
        closing = asyncio.ensure_future(bench.subscription.close(1))
    await asyncio.sleep(0.1)
    assert "NACK" not in bench.session.commands()
    if closing is not None:
        closing.cancel()
