"""A scripted peer that takes one consumer under a subscription's name, as ActiveMQ does under a client id."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.faults.peer import Connection, Script, ScriptedPeer
from tests.stomp_frames import Frame

ACTIVE = {"version": "1.2", "server": "ActiveMQ/5.17.2"}


class ActivePeer(ScriptedPeer):
    """The second consumer is refused; the connection stays."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.refused = 0
        self._consumers: dict[str, tuple[Connection, str]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls) -> AsyncIterator[ActivePeer]:
        """Listen until the block ends."""
        async with cls(Script(connected=ACTIVE)).listening() as peer:
            yield peer

    @property
    def consumer(self) -> Connection | None:
        """The connection whose consumer may be given a message."""
        lanes = [frame["id"] for _, frame in self.received if frame.headers.get("activemq.prefetchSize") == "1"]
        return next((owner for owner, lane in self._consumers.values() if lane in lanes and self._is_here(owner)), None)

    @property
    def publishing(self) -> Connection:
        """The latest connection that was published on."""
        return next(connection for connection, frame in reversed(self.received) if frame.command == "SEND")

    async def end(self, name: str) -> None:
        """The broker ends the consumer under this name, as where the subscription is gone."""
        connection, lane = self._consumers.pop(name)
        await connection.send("ERROR", {"subscription": lane, "message": "The subscription was removed"})

    def _is_here(self, connection: Connection) -> bool:
        return not connection.ended.is_set()

    def _take(self, connection: Connection, frame: Frame) -> None:
        super()._take(connection, frame)
        if frame.command == "UNSUBSCRIBE":
            gone = connection, frame["id"]
            self._consumers = {name: each for name, each in self._consumers.items() if each != gone}
        elif frame.command == "SUBSCRIBE":
            self._subscribe(connection, frame)

    def _subscribe(self, connection: Connection, frame: Frame) -> None:
        name = frame["activemq.subscriptionName"]
        if name in self._consumers and self._is_here(self._consumers[name][0]):
            self.refused += 1
            why = f"Durable consumer is in use for client: gateway and subscriptionName: {name}"
            error = Frame("ERROR", {"message": why, "receipt-id": frame["receipt"]})
            connection._writer.write(error.encode())
        else:
            self._consumers[name] = connection, frame["id"]
