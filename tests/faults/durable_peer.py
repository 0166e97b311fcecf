"""A scripted peer with durable queues behind Topics, as RabbitMQ's STOMP plugin has them."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame

RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}


@dataclass(order=True)
class Waiting:
    """A message in a queue, where it was published among the others."""

    place: int
    body: bytes = field(compare=False)
    redelivered: bool = field(default=False, compare=False)


@dataclass(eq=False)
class Consumer:
    connection: Connection
    subscription: str
    credit: int


@dataclass(eq=False)
class Queue:
    topics: set[str] = field(default_factory=set)
    waiting: list[Waiting] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)


class DurablePeer(ScriptedPeer):
    """A SUBSCRIBE to a Topic with `x-queue-name` makes a queue, consumes from it and then binds it; where it fails, the
    queue is deleted. One to `/amq/queue/` never makes one, and where it fails the connection ends."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.queues: dict[str, Queue] = {}
        self.vanished = 0
        #: SUBSCRIBEs that make and bind.
        self.makings = 0
        #: What the next of these does: `refuse` to bind, `vanish` after the queue was made. `hang up`: the next to ask.
        #: `full`: after the answer to the next to ask no connection is taken.
        self.fails: list[str] = []
        #: Said to those who ask for a queue.
        self.refuses: str | None = None
        #: False: as a RabbitMQ that does not look at the argument.
        self.checks_arguments = True
        self._places = 0
        self._tags: dict[int, int] = {}
        self._unacked: dict[tuple[int, int], tuple[str, Consumer, Waiting]] = {}
        self._watched: set[int] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls) -> AsyncIterator[DurablePeer]:
        """Listen until the block ends."""
        async with cls(Script(connected=RABBIT)).listening() as peer:
            yield peer

    def publish(self, topic: str, *bodies: bytes) -> None:
        """By another producer."""
        for body in bodies:
            found = [queue for queue in self.queues.values() if topic in queue.topics]
            self.vanished += not found
            self._places += 1
            for queue in found:
                queue.waiting.append(Waiting(self._places, body))
        self._pump_soon()

    def waits(self, name: str) -> list[bytes]:
        """What waits in a queue."""
        return [each.body for each in self.queues[name].waiting]

    def delete(self, name: str) -> None:
        """A queue, by its administrator: who consumes is told."""
        queue = self.queues.pop(name)
        self._unacked = {key: unacked for key, unacked in self._unacked.items() if unacked[0] != name}
        for consumer in queue.consumers:
            consumer.connection._writer.write(
                Frame("ERROR", {"subscription": consumer.subscription, "message": "Server cancelled"}).encode()
            )

    @property
    def living(self) -> list[Connection]:
        return [connection for connection in self.connections if not connection.ended.is_set()]

    def _take(self, connection: Connection, frame: Frame) -> None:
        super()._take(connection, frame)
        if connection.number not in self._watched:
            self._watched.add(connection.number)
            self._tasks.add(asyncio.get_running_loop().create_task(self._watch(connection)))
        match frame.command:
            case "SUBSCRIBE":
                self._subscribe(connection, frame)
            case "UNSUBSCRIBE":
                ended = connection, frame["id"]
                for queue in self.queues.values():
                    queue.consumers = [
                        each for each in queue.consumers if (each.connection, each.subscription) != ended
                    ]
            case "SEND" if frame["destination"].startswith("/topic/"):
                self.publish(frame["destination"].removeprefix("/topic/"), frame.body)
            case "ACK" | "NACK":
                self._answer_to(connection, frame)

    async def _watch(self, connection: Connection) -> None:
        """What it has not acknowledged goes back with its end."""
        await connection.ended.wait()
        for queue in self.queues.values():
            queue.consumers = [each for each in queue.consumers if each.connection is not connection]
        for key in [key for key in self._unacked if key[0] == connection.number]:
            self._requeue(*self._unacked.pop(key))
        self._pump_soon()

    def _requeue(self, name: str, consumer: Consumer, waiting: Waiting) -> None:
        waiting.redelivered = True
        consumer.credit += 1
        if name in self.queues:
            bisect.insort(self.queues[name].waiting, waiting)

    def _subscribe(self, connection: Connection, frame: Frame) -> None:
        path = frame["destination"]
        if path.startswith("/amq/queue/"):
            self._read(connection, frame, path.removeprefix("/amq/queue/"))
        elif "x-queue-name" in frame.headers:
            self._make(connection, frame, frame["x-queue-name"])

    def _read(self, connection: Connection, frame: Frame, name: str) -> None:
        if self.fails == ["hang up"]:
            self.fails = []
            connection.reset()
        elif self.refuses is not None:
            self._refuse(connection, self.refuses)
        elif name not in self.queues:
            self._refuse(connection, f"NOT_FOUND - no queue '{name}' in vhost '/'")
            if self.fails == ["full"]:
                self.fails = []
                self.script.refusal = Frame("ERROR", {"message": "Bad CONNECT"}, b"vhost connection limit reached")
        elif "x-stream-offset" in frame.headers and self.checks_arguments:
            self._refuse(connection, f"PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{name}'")
        else:
            self._consume(connection, frame, name)

    def _make(self, connection: Connection, frame: Frame, name: str) -> None:
        assert (frame["durable"], frame["auto-delete"], frame["ack"]) == ("true", "false", "client-individual")
        self.makings += 1
        failure = self.fails.pop(0) if self.fails else ""
        self.queues.setdefault(name, Queue())
        if failure == "refuse":
            self.queues.pop(name)
            self._refuse(connection, f"ACCESS_REFUSED - access to queue '{name}' in vhost '/' refused for user 'guest'")
        elif failure == "vanish":
            connection.reset()
        else:
            self._consume(connection, frame, name)
            self.queues[name].topics.add(frame["destination"].removeprefix("/topic/"))

    def _consume(self, connection: Connection, frame: Frame, name: str) -> None:
        consumer = Consumer(connection, frame["id"], int(frame.headers.get("prefetch-count", "1000")))
        self.queues[name].consumers.append(consumer)
        self._pump_soon()

    def _answer_to(self, connection: Connection, frame: Frame) -> None:
        number = int(frame["id"].rpartition("@@")[2])
        unacked = self._unacked.pop((connection.number, number), None)
        if unacked is None:
            self._refuse(connection, f"PRECONDITION_FAILED - unknown delivery tag {number}")
        elif frame.command == "NACK" and frame["requeue"] == "true":
            self._requeue(*unacked)
        else:
            unacked[1].credit += 1
        self._pump_soon()

    def _refuse(self, connection: Connection, why: str) -> None:
        """An ERROR, the RECEIPT all the same, and the end."""
        frames = [Frame("ERROR", {"message": why.partition(" ")[0].lower()}, why.encode())]
        frames += [
            Frame("RECEIPT", {"receipt-id": receipt})
            for receipt in [connection.received[-1].headers.get("receipt")]
            if receipt
        ]
        connection._writer.write(b"".join(frame.encode() for frame in frames))
        connection.close()

    def _pump_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Deliver, to those who consume in turns."""
        for name, queue in self.queues.items():
            while queue.waiting:
                ready = [each for each in queue.consumers if each.credit > 0 and not each.connection.ended.is_set()]
                if not ready:
                    break
                queue.consumers.remove(ready[0])
                queue.consumers.append(ready[0])
                self._deliver(name, ready[0], queue.waiting.pop(0))

    def _deliver(self, name: str, consumer: Consumer, waiting: Waiting) -> None:
        number = consumer.connection.number
        tag = self._tags[number] = self._tags.get(number, 0) + 1
        consumer.credit -= 1
        self._unacked[number, tag] = name, consumer, waiting
        token = f"T_{consumer.subscription}@@session-x@@{tag}"
        headers = {
            "subscription": consumer.subscription,
            "message-id": token,
            "ack": token,
            "destination": "/topic/alerts",
            "redelivered": str(waiting.redelivered).lower(),
        }
        consumer.connection._writer.write(Frame("MESSAGE", headers, waiting.body).encode())
