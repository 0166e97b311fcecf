"""What has ended is freed at once: not by a timer, not by the collector of cycles, and never beside the budget."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from app.config.settings import Settings
from app.domain.errors import ConfirmTimeout, ConnectionLost, NoReply
from app.domain.message import Message, Publication
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.gateway.queue import QueueReader
from app.gateway.stream import Reader, StreamRequest
from tests.contract.conftest import WAIT
from tests.faults.conftest import FAST
from tests.faults.peer import Script, ScriptedPeer

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.12.4", "heart-beat": "0,0"}
JOBS = MqUri.parse("svc::Queues::jobs")
LARGE = 1_000_000


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what is freed without looking for cycles is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def until(holds: Callable[[], bool], what: str) -> None:
    """What tells no one when it changes; raises TimeoutError."""
    try:
        async with asyncio.timeout(WAIT):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(what) from None


class Made:
    """Objects of a type that were not there before, in cycles or not."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._before = self._count()

    def _count(self) -> int:
        return sum(type(each) is self._kind for each in gc.get_objects())

    @property
    def alive(self) -> int:
        return self._count() - self._before


@contextlib.asynccontextmanager
async def gateway_at(peer: ScriptedPeer, **limits: Any) -> AsyncIterator[Gateway]:
    service = {
        "mq_type": "Stomp",
        "hosts": [peer.address],
        "user": "guest",
        "password": "guest",
        "heartbeat_ms": [0, 0],
        "reconnect": FAST,
        "queues": {"jobs": {}},
    }
    settings = Settings.model_validate({"services": {"svc": service}, "limits": limits})
    async with Gateway(settings) as gateway:
        await until(lambda: gateway.link_states()["svc"] == "up", "the link is up")
        yield gateway


async def full_reader(gateway: Gateway, peer: ScriptedPeer, messages: int) -> Reader:
    """A stream of the queue that nobody writes to a client, and so many large messages for it."""
    reader = await gateway.open_stream(gateway.resolve(JOBS), StreamRequest(), timeout=WAIT)
    connection, asked = await peer.frame_from("SUBSCRIBE", where=lambda frame: frame["destination"] == "/queue/jobs")
    for number in range(messages):
        token = f"T_{asked['id']}@@session@@{connection.number}{number}"
        await connection.message(asked["id"], bytes(LARGE), ack=token, message_id=token)
    return reader


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["close", "cancel", "lost, then close"])
async def test_a_stream_that_ended_leaves_no_message_behind(end: str) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT)) as peer, gateway_at(peer) as gateway:
        messages, readers = Made(Message), Made(QueueReader)
        reader = await full_reader(gateway, peer, 10)
        await until(lambda: gateway._streams.buffered() == 10 * LARGE, "all messages are here")
        assert messages.alive == 10
        connection = await peer.connection()
        if end == "cancel":
            await connection.send("ERROR", {"subscription": reader._subscription._id})  # type: ignore[attr-defined]
            await asyncio.wait_for(reader.ready(), WAIT)
        elif end == "lost, then close":
            connection.reset()
            await until(lambda: gateway._streams.buffered() == 0, "the loss was told")
        await reader.close()
        del reader
        await until(lambda: messages.alive == 0, "all messages are freed")
        # The connection that was lost may have a callback to go, and knows the reader until then.
        await until(lambda: gc.collect() >= 0 and readers.alive == 0, "the reader is freed")
        assert gateway._streams.buffered() == 0


async def all_fail(puts: list[asyncio.Task[None]], peer: ScriptedPeer, end: str) -> None:
    """With their connection, or at their deadlines; nobody holds what they ended with."""
    if end == "lost":
        (await peer.connection()).reset()
    while puts:
        with contextlib.suppress(ConnectionLost, ConfirmTimeout):
            await puts.pop()
            pytest.fail("it cannot have been confirmed")


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["lost", "timeout"])
async def test_publishes_that_failed_leave_no_body_behind(end: str) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer, gateway_at(peer) as gateway:
        made = Made(Publication)

        async def put() -> None:
            publication = Publication(body=bytes(LARGE), message_id="id-1")
            seconds = 0.5 if end == "timeout" else WAIT
            await gateway.publish(gateway.resolve(JOBS), publication, timeout=seconds)

        puts = [asyncio.ensure_future(put()) for _ in range(10)]
        await peer.frames("SEND", 10)
        await all_fail(puts, peer, end)
        await until(lambda: made.alive == 0, "all bodies are freed")
        peer.script.receipts = True  # of DISCONNECT
        assert gateway.budget.reserved == 0


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["lost", "timeout"])
async def test_transactions_that_failed_leave_no_body_behind(end: str) -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer, gateway_at(peer) as gateway:
        made = Made(Publication)

        async def put() -> None:
            several = [Publication(body=bytes(LARGE), message_id=f"id-{number}") for number in range(3)]
            seconds = 0.5 if end == "timeout" else WAIT
            await gateway.publish_together(gateway.resolve(JOBS), several, timeout=seconds)

        puts = [asyncio.ensure_future(put()) for _ in range(4)]
        await peer.frames("COMMIT", 4)
        await all_fail(puts, peer, end)
        await until(lambda: made.alive == 0, "all bodies are freed")
        peer.script.receipts = True  # of DISCONNECT
        assert gateway.budget.reserved == 0


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("receipts", [True, False])
@pytest.mark.parametrize("end", ["reply", "lost", "timeout"])
async def test_requests_that_ended_leave_nothing_behind(end: str, receipts: bool) -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT, receipts=receipts)) as peer,
        gateway_at(peer) as gateway,
    ):
        publications, messages = Made(Publication), Made(Message)

        async def request() -> None:
            publication = Publication(body=bytes(LARGE), message_id="id-1", correlation_id="mine")
            seconds = 0.5 if end == "timeout" else WAIT
            async with gateway.request(gateway.resolve(JOBS), publication, timeout=seconds) as reply:
                assert len(reply.body) == LARGE

        requests = [asyncio.ensure_future(request()) for _ in range(10)]
        for _ in range(10):
            connection, sent = await peer.frame_from("SEND")
            if end == "reply":
                await connection.message(sent["reply-to"], bytes(LARGE), correlation_id=sent["correlation-id"])
        if end == "lost":
            (await peer.connection()).reset()
        while requests:
            with contextlib.suppress(ConnectionLost, NoReply, ConfirmTimeout):
                await requests.pop()
                assert end == "reply"
        await until(lambda: publications.alive == 0, "all requests are freed")
        await until(lambda: messages.alive == 0, "all replies are freed")
        peer.script.receipts = True  # of DISCONNECT
        assert gateway.budget.reserved == 0
        assert gateway._requests.buffered == 0


async def test_parked_messages_end_the_fullest_streams_instead_of_taking_the_memory_of_all() -> None:
    async with (
        ScriptedPeer.listen(Script(connected=RABBIT)) as peer,
        gateway_at(peer, memory_bytes=8 << 20) as gateway,
    ):
        readers = [await full_reader(gateway, peer, 10) for _ in range(8)]

        def ended() -> list[Reader]:
            return [reader for reader in readers if reader._end == "memory"]

        await until(lambda: len(ended()) >= 7, "streams end")
        assert gateway._buffered() <= 8 << 20
        peer.script.receipts = True
        await gateway.publish(gateway.resolve(JOBS), Publication(body=b"x", message_id="id-1"), timeout=WAIT)
        taken = [batch async for batch in batches(ended()[0])]
        assert taken in ([(1, "memory")], [(1, None), (0, "memory")])
        connection = await peer.connection()
        for reader in readers:
            await reader.close()
        given_back = peer.count("NACK")
        assert given_back == 8 * 10 - 1, f"{given_back} of 80, one was handed over"
        assert not connection.ended.is_set()


async def batches(reader: Reader) -> AsyncIterator[tuple[int, str | None]]:
    """Number of messages and end of each batch, handed over at once."""
    while True:
        await reader.ready()
        batch = reader.take()
        reader.handed_over(batch)
        yield batch.events, batch.end
        if batch.end is not None:
            return


async def test_what_opens_while_its_service_is_taken_away_ends() -> None:
    async with ScriptedPeer.listen(Script(connected=RABBIT, receipts=False)) as peer, gateway_at(peer) as gateway:
        opening = asyncio.ensure_future(gateway.open_stream(gateway.resolve(JOBS), StreamRequest(), timeout=WAIT))
        consuming = asyncio.ensure_future(gateway.create_consumer(str(JOBS), timeout=WAIT))
        await peer.frames("SUBSCRIBE", 2)
        await gateway.reload(Settings.model_validate({"services": {"other": {"mq_type": "Memory"}}}))
        peer.script.receipts = True
        await (await peer.connection()).release()
        assert [batch async for batch in batches(await opening)] == [(0, "reload")]
        with pytest.raises(ConnectionLost, match="configured otherwise"):
            await (await consuming).get(WAIT)
