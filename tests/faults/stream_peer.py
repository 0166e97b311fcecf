"""A scripted peer with one stream, read and acknowledged as RabbitMQ's STOMP plugin does it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame
from tests.stream_log import StreamLog

#: Offsets from here on are asked for by those who want nothing.
NEVER = 1 << 62
RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}


@dataclass(eq=False)
class _Reader:
    connection: Connection
    subscription: str
    at: int
    credit: int
    unacked: set[int] = field(default_factory=set)


class StreamPeer(ScriptedPeer):
    """A SUBSCRIBE with `x-queue-type: stream` makes the stream, one to the Topic binds it. Before that, all vanishes.

    A SUBSCRIBE to the Topic for which there is something to deliver ends the connection, and the stream is deleted.
    `chunk` messages come whatever the credit (as before RabbitMQ 4). A NACK, or a second answer, ends the connection.
    """

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.log = StreamLog()
        self.made = False
        self.bound = False
        self.vanished = 0
        self.chunk = 1
        #: False: readers get nothing for now.
        self.delivering = True
        self.readers: dict[tuple[int, str], _Reader] = {}
        self._declared: set[tuple[int, str]] = set()
        self._living: set[tuple[int, str]] = set()
        self._tags: dict[int, int] = {}
        self._owners: dict[tuple[int, int], _Reader | None] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls) -> AsyncIterator[StreamPeer]:
        """Listen until the block ends."""
        async with cls(Script(connected=RABBIT)).listening() as peer:
            yield peer

    def publish(self, *bodies: bytes) -> None:
        """By another producer."""
        for body in bodies:
            self.log.publish(body)
        self.pump_soon()

    @property
    def reading(self) -> list[_Reader]:
        """Those who can get something."""
        readers = [reader for reader in self.readers.values() if not reader.connection.ended.is_set()]
        return [reader for reader in readers if reader.at < NEVER]

    def close_all(self) -> None:
        """All connections."""
        for connection in self.connections:
            connection.close()

    def delete(self) -> None:
        """The stream, with all that is in it."""
        self.log = StreamLog()
        self.made = self.bound = False
        for reader in self.reading:
            text = "The server has canceled a subscription."
            headers = {"message": "Server cancelled subscription", "subscription": reader.subscription}
            reader.connection._writer.write(Frame("ERROR", headers, text.encode()).encode())
        self.readers.clear()

    def unanswered(self) -> int:
        """Messages that nobody has acknowledged, of ended subscriptions too."""
        return sum(owner is not None for owner in self._owners.values())

    def _take(self, connection: Connection, frame: Frame) -> None:
        super()._take(connection, frame)
        match frame.command:
            case "SUBSCRIBE":
                self._subscribe(connection, frame)
            case "UNSUBSCRIBE":
                self._living.discard((connection.number, frame["id"]))
                self.readers.pop((connection.number, frame["id"]), None)
            case "SEND" if frame["destination"].startswith("/topic/"):
                self._send(frame)
            case "ACK":
                self._ack(connection, frame)
            case "NACK":
                self._refuse(connection, "basic.nack is not supported by stream queues")

    def _subscribe(self, connection: Connection, frame: Frame) -> None:
        self._living.add((connection.number, frame["id"]))
        if "x-stream-offset" not in frame.headers:
            return
        self._declare(connection, frame)
        if not self.made:
            self._refuse(connection, "NOT_FOUND - no queue 'alerts-stream' in vhost '/'")
            return
        if frame["ack"] == "auto" or int(frame.headers.get("prefetch-count", "0")) < 1:
            self._refuse(connection, "streams need credit and acknowledgements")
            return
        at = self.log.begin(frame["x-stream-offset"])
        if frame["destination"].startswith("/topic/"):
            self.bound = True
            if self.log.at(at) is not None:
                self.delete()
                self._refuse(connection, "AMQP channel died: Reason: shutdown")
                return
        reader = _Reader(connection, frame["id"], at, int(frame["prefetch-count"]))
        self.readers[connection.number, frame["id"]] = reader
        self.pump_soon()

    def _declare(self, connection: Connection, frame: Frame) -> None:
        """Under `/queue/` once for each connection, whatever became of it since; under a Topic always."""
        queue = (connection.number, frame["destination"])
        if frame.headers.get("x-queue-type") == "stream" and queue not in self._declared:
            self.made = True
            if frame["destination"].startswith("/queue/"):
                self._declared.add(queue)

    def _send(self, frame: Frame) -> None:
        if self.bound:
            self.log.publish(frame.body)
            self.pump_soon()
        else:
            self.vanished += 1

    def _ack(self, connection: Connection, frame: Frame) -> None:
        subscription, _, number = frame["id"].removeprefix("T_").split("@@")
        owner = self._owners.pop((connection.number, int(number)), None)
        if (connection.number, subscription) not in self._living or owner is None:
            self._refuse(connection, f"unknown delivery {frame['id']}")
            return
        owner.unacked.discard(int(number))
        owner.credit += 1
        self.pump_soon()

    def _refuse(self, connection: Connection, why: str) -> None:
        connection._writer.write(Frame("ERROR", {"message": why}).encode())
        connection.close()

    def pump_soon(self) -> None:
        """Deliver, after what is being answered."""
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        for key, reader in list(self.readers.items()):
            if reader.connection.ended.is_set():
                del self.readers[key]
                continue
            while self.delivering and reader.credit > 0 and self.log.at(reader.at) is not None:
                for _ in range(self.chunk):
                    self._deliver(reader)

    def _deliver(self, reader: _Reader) -> None:
        found = self.log.at(reader.at)
        if found is None:
            return
        offset, body = found
        connection = reader.connection
        tag = self._tags[connection.number] = self._tags.get(connection.number, 0) + 1
        token = f"T_{reader.subscription}@@session-x@@{tag}"
        headers = {
            "subscription": reader.subscription,
            "message-id": token,
            "ack": token,
            "destination": "/topic/alerts",
            "x-stream-offset": str(offset),
        }
        connection._writer.write(Frame("MESSAGE", headers, body).encode())
        reader.at, reader.credit = offset + 1, reader.credit - 1
        self._owners[connection.number, tag] = reader
