"""A scripted peer that behaves as ActiveMQ Artemis does over STOMP 1.2, as far as its source and documentation tell.

Not a broker: one process, nothing on disk, nothing of what the gateway does not use. What is modelled: prefixes of the
acceptor or none, routing types, credit in bytes that begins after the RECEIPT of SUBSCRIBE, ack ids of consumer and
message, NACK as ACK, redelivery that is marked after a lost connection and not after UNSUBSCRIBE, `expires`, groups,
delays, duplicate ids, transactions, and which ERROR names its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame

ARTEMIS = {
    "version": "1.2",
    "server": "ActiveMQ-Artemis/2.31.0 ActiveMQ Artemis Messaging Engine",
    "heart-beat": "0,0",
}
#: Bytes of credit where a SUBSCRIBE does not say.
_WINDOW = 10 * 1024
_PREFIXES = {"/queue/": "ANYCAST", "/topic/": "MULTICAST"}
#: Of a SEND; what is not here becomes a property, and is delivered as a header.
_FIELDS = frozenset({"priority", "persistent", "correlation-id", "type", "content-type", "reply-to", "expires"})


@dataclass(eq=False)
class _Message:
    number: int
    address: str
    prefix: str
    frame: Frame
    deliveries: int = 0

    @property
    def is_over(self) -> bool:
        expires = int(self.frame.headers.get("expires", "0"))
        return 0 < expires <= time.time() * 1000

    def headers(self) -> dict[str, str]:
        sent = self.frame.headers
        known = {name: sent[name] for name in ("correlation-id", "type", "content-type", "reply-to") if name in sent}
        known |= {
            "destination": self.prefix + self.address,
            "expires": sent.get("expires", "0"),
            "redelivered": str(self.deliveries > 1).lower(),
            "priority": sent.get("priority", "4"),
            "persistent": str(sent.get("persistent", "").lower() == "true").lower(),
            "timestamp": "1700000000000",
        }
        # `receipt`, `destination-type` and the like come out as they went in.
        return {**{name: value for name, value in sent.items() if name not in _FIELDS}, **known}


@dataclass(eq=False)
class _Queue:
    waiting: deque[_Message] = field(default_factory=deque)
    consumers: deque[_Consumer] = field(default_factory=deque)
    groups: dict[str, _Consumer] = field(default_factory=dict)

    def taker(self, message: _Message) -> _Consumer | None:
        """The next consumer with credit, the one of its group where it has one."""
        group = message.frame.headers.get("JMSXGroupID")
        if group in self.groups:
            return self.groups[group] if self.groups[group].has_credit else None
        for _ in range(len(self.consumers)):
            self.consumers.rotate(-1)
            if self.consumers[-1].has_credit:
                if group is not None:
                    self.groups[group] = self.consumers[-1]
                return self.consumers[-1]
        return None


@dataclass(eq=False)
class _Consumer:
    number: int
    connection: Connection
    subscription: str
    queue: _Queue
    #: Bytes; None: all that comes.
    credit: int | None
    acknowledges: bool
    unacked: dict[int, tuple[_Message, int]] = field(default_factory=dict)

    @property
    def has_credit(self) -> bool:
        return not self.connection.ended.is_set() and (self.credit is None or self.credit > 0)


class ArtemisPeer(ScriptedPeer):
    """`discarded` has the bodies of what was acknowledged with NACK."""

    def __init__(self, script: Script, *, prefixes: bool = True) -> None:
        super().__init__(script)
        self.discarded: list[bytes] = []
        #: Names nobody may use, as without the right for it.
        self.forbidden: set[str] = set()
        self._prefixes = prefixes
        self._routing: dict[str, str] = {}
        self._queues: dict[str, _Queue] = {}
        self._subscribers: dict[str, list[_Queue]] = {}
        self._consumers: dict[tuple[int, str], _Consumer] = {}
        self._duplicates: set[tuple[str, str]] = set()
        self._transactions: dict[tuple[int, str], list[_Message]] = {}
        self._last = 0
        self._pumping = False

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls, *, prefixes: bool = True) -> AsyncIterator[ArtemisPeer]:
        """Listen until the block ends; with the acceptor's prefixes /queue/ and /topic/, or without."""
        async with cls(Script(connected=ARTEMIS), prefixes=prefixes).listening() as peer:
            yield peer

    def waiting(self, name: str) -> list[bytes]:
        """Bodies that wait in a queue."""
        queue = self._queues.get(name, _Queue())
        return [message.frame.body for message in queue.waiting]

    def disconnect_consumers(self) -> None:
        """By the administrator: an ERROR that names neither a receipt nor a subscription."""
        for consumer in list(self._consumers.values()):
            self._end(consumer, failed=False)
            text = b"consumer with ID ServerConsumerImpl [id=1] disconnected by server"
            _write(consumer.connection, "ERROR", {"content-type": "text/plain"}, text)

    def _take(self, connection: Connection, frame: Frame) -> None:
        super()._take(connection, frame)
        match frame.command:
            case "CONNECT" | "STOMP":
                task = asyncio.get_running_loop().create_task(self._until_gone(connection))
                self._tasks.add(task)
            case "SEND":
                self._send(connection, frame)
            case "SUBSCRIBE":
                self._subscribe(connection, frame)
            case "UNSUBSCRIBE":
                self._unsubscribe(connection, frame["id"])
            case "ACK" | "NACK":
                self._answered(connection, frame)
            case "BEGIN" | "COMMIT" | "ABORT":
                self._transact(connection, frame)
        self._pump_soon()

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _refuse(self, connection: Connection, frame: Frame, text: str) -> None:
        """An ERROR, which names its request but for a SUBSCRIBE; the connection stays."""
        receipt = cast("dict[str, str]", frame.headers).pop("receipt", None)  # it gets no RECEIPT
        named = receipt is not None and frame.command != "SUBSCRIBE"
        _write(connection, "ERROR", {"message": text, **({"receipt-id": str(receipt)} if named else {})})

    def _address(self, connection: Connection, frame: Frame, type_header: str) -> tuple[str, str, str] | None:
        """Prefix, address and routing type; None where it was refused."""
        path, prefix, routing = frame["destination"], "", frame.headers.get(type_header)
        for each, implied in _PREFIXES.items():
            if self._prefixes and path.startswith(each):
                prefix, routing = each, routing or implied
        address = path.removeprefix(prefix)
        if address in self.forbidden:
            what = "CONSUME" if frame.command == "SUBSCRIBE" else "SEND"
            text = f"AMQ229032: User: guest does not have permission='{what}' on address {address}"
            self._refuse(connection, frame, text)
            return None
        known = self._routing.setdefault(address, routing or "MULTICAST")
        if routing is not None and routing != known:
            self._refuse(connection, frame, f"AMQ339018: Illegal semantics for {address}, which is {known}")
            return None
        return prefix, address, known

    def _send(self, connection: Connection, frame: Frame) -> None:
        found = self._address(connection, frame, "destination-type")
        if found is None:
            return
        prefix, address, _ = found
        message = _Message(self._number(), address, prefix, Frame("SEND", dict(frame.headers), frame.body))
        transaction = frame.headers.get("transaction")
        if transaction is None:
            self._route(message)
        else:
            self._transactions[connection.number, transaction].append(message)

    def _route(self, message: _Message) -> None:
        headers = cast("dict[str, str]", message.frame.headers)
        duplicate = headers.get("_AMQ_DUPL_ID")
        if duplicate is not None and (message.address, duplicate) in self._duplicates:
            return  # taken for sent
        if duplicate is not None:
            self._duplicates.add((message.address, duplicate))
        delay = headers.pop("AMQ_SCHEDULED_DELAY", None)
        if delay is not None:
            asyncio.get_running_loop().call_later(int(delay) / 1000, self._arrive, message)
        else:
            self._arrive(message)

    def _arrive(self, message: _Message) -> None:
        if self._routing[message.address] == "ANYCAST":
            self._queues.setdefault(message.address, _Queue()).waiting.append(message)
        else:
            for queue in self._subscribers.get(message.address, []):
                queue.waiting.append(_Message(message.number, message.address, message.prefix, message.frame))
        self._pump_soon()

    def _transact(self, connection: Connection, frame: Frame) -> None:
        key = connection.number, frame["transaction"]
        if frame.command == "BEGIN":
            self._transactions[key] = []
            return
        for message in self._transactions.pop(key, []):
            if frame.command == "COMMIT":
                self._route(message)

    def _subscribe(self, connection: Connection, frame: Frame) -> None:
        found = self._address(connection, frame, "subscription-type")
        if found is None:
            return
        _, address, routing = found
        if routing == "ANYCAST":
            queue = self._queues.setdefault(address, _Queue())
        else:
            queue = _Queue()
            self._subscribers.setdefault(address, []).append(queue)
        acknowledges = frame["ack"] != "auto"
        window = int(frame.headers.get("consumer-window-size", _WINDOW)) or 1
        credit = window if acknowledges else None
        consumer = _Consumer(self._number(), connection, frame["id"], queue, credit, acknowledges)
        self._consumers[connection.number, frame["id"]] = consumer
        queue.consumers.append(consumer)

    def _unsubscribe(self, connection: Connection, subscription: str) -> None:
        consumer = self._consumers.get((connection.number, subscription))
        if consumer is not None:
            self._end(consumer, failed=False)

    def _end(self, consumer: _Consumer, *, failed: bool) -> None:
        """What was not acknowledged goes back to where it was; it counts as delivered only where the client failed."""
        del self._consumers[consumer.connection.number, consumer.subscription]
        queue = consumer.queue
        queue.consumers.remove(consumer)
        queue.groups = {group: taker for group, taker in queue.groups.items() if taker is not consumer}
        for queues in self._subscribers.values():
            if queue in queues and not queue.consumers:
                queues.remove(queue)
        back = [message for message, _ in consumer.unacked.values()]
        for message in back:
            message.deliveries -= not failed
        queue.waiting = deque(sorted([*back, *queue.waiting], key=lambda message: message.number))

    def _answered(self, connection: Connection, frame: Frame) -> None:
        number, _, message_id = frame["id"].partition(",")
        own = (consumer for consumer in self._consumers.values() if consumer.connection is connection)
        consumer = next((each for each in own if str(each.number) == number), None)
        found = None if consumer is None else consumer.unacked.pop(int(message_id), None)
        if consumer is None or found is None:
            self._refuse(connection, frame, f"AMQ339012: Failed to ack because no message with id: {frame['id']}")
            return
        message, size = found
        consumer.credit = None if consumer.credit is None else consumer.credit + size
        if frame.command == "NACK":
            self.discarded.append(message.frame.body)

    async def _until_gone(self, connection: Connection) -> None:
        await connection.ended.wait()
        for consumer in [each for each in self._consumers.values() if each.connection is connection]:
            self._end(consumer, failed=True)
        self._pump_soon()

    def _pump_soon(self) -> None:
        """Deliver, after what is being answered."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        for queue in {consumer.queue: None for consumer in self._consumers.values()}:
            for message in list(queue.waiting):
                if message.is_over:
                    queue.waiting.remove(message)
                elif (taker := queue.taker(message)) is not None:
                    queue.waiting.remove(message)
                    self._deliver(message, taker)
                elif not any(consumer.has_credit for consumer in queue.consumers):
                    break

    def _deliver(self, message: _Message, consumer: _Consumer) -> None:
        message.deliveries += 1
        token = f"{consumer.number},{message.number}"
        headers = {**message.headers(), "subscription": consumer.subscription, "message-id": token}
        if consumer.acknowledges:
            headers["ack"] = token
        size = _write(consumer.connection, "MESSAGE", headers, message.frame.body)
        if consumer.acknowledges:
            consumer.unacked[message.number] = message, size
            consumer.credit = None if consumer.credit is None else consumer.credit - size


def _write(connection: Connection, command: str, headers: dict[str, str], body: bytes = b"") -> int:
    """One frame; its size in bytes."""
    data = Frame(command, headers, body).encode()
    connection._writer.write(data)
    return len(data)
