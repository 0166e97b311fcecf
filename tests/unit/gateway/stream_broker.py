"""A connector with one stream that delivers when it is told to, over links that are lost when it is told so."""

from __future__ import annotations

from app.connectors.base import Delivery, Destination, Listener, Subscription
from app.connectors.stomp.stream_cursor import StreamCursor
from app.domain.errors import BrokerUnavailable
from app.domain.stream import StreamStart
from tests.stream_log import StreamLog
from tests.unit.gateway.fakes import FakeConnector, message


class StreamBroker(FakeConnector):
    """Goes by the offsets as StompMQConnector does, with its StreamCursor."""

    def __init__(self) -> None:
        super().__init__()
        self.log = StreamLog()
        self.up = True
        self.epoch = 1
        self.readings: list[Reading] = []

    async def subscribe(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        timeout: float,
        start: StreamStart | None = None,
    ) -> Subscription:
        assert acknowledge
        assert start is not None
        self.asked.append({"start": start, "prefetch": prefetch})
        await self.open.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        if not self.up:
            raise BrokerUnavailable("the link is down")
        reading = Reading(self, listener, start, prefetch)
        self.readings.append(reading)
        return reading

    @property
    def live(self) -> Reading:
        return next(reading for reading in self.readings if reading.start.kind == "last")

    @property
    def replays(self) -> list[Reading]:
        return [reading for reading in self.readings if reading.start.kind != "last"]

    @property
    def places(self) -> list[int]:
        """Where the subscriptions stand that are read now."""
        return [reading.at for reading in self.readings] if self.up else []

    def pump(self) -> bool:
        """Deliver what credit allows; False where there was nothing."""
        moved = False
        for reading in list(self.readings):
            moved |= reading.pump()
        return moved

    def lose(self) -> None:
        self.up = False
        for reading in list(self.readings):
            reading.listener.on_lost()

    def restore(self) -> None:
        self.up = True
        self.epoch += 1
        for reading in list(self.readings):
            reading.begin()
            reading.listener.on_restored()


class Reading(Subscription):
    """One subscription."""

    def __init__(self, broker: StreamBroker, listener: Listener, start: StreamStart, prefetch: int) -> None:
        self.listener = listener
        self.start = start
        self.acked: list[int | None] = []
        self._broker = broker
        self._cursor = StreamCursor(start)
        self._prefetch = prefetch
        self.begin()

    def begin(self) -> None:
        self.at = self._broker.log.begin(self._cursor.ask())
        self.unacked: set[str] = set()

    def pump(self) -> bool:
        before = self.at
        while self._broker.up and self in self._broker.readings and len(self.unacked) < self._prefetch:
            found = self._broker.log.at(self.at)
            if found is None:
                break
            self.at = found[0] + 1
            place = self._cursor.place(str(found[0]))
            assert place is not None
            if not place.repeated:
                token = f"{self._broker.epoch}-{found[0]}"
                self.unacked.add(token)
                delivery = Delivery(message(found[1]), token, self._broker.epoch, place.offset, place.missing)
                self.listener.on_message(delivery)
        return self.at != before

    def ack(self, delivery: Delivery) -> bool:
        if delivery.epoch != self._broker.epoch:
            return False
        self.unacked.remove(delivery.token)
        self.acked.append(delivery.offset)
        return True

    def nack(self, delivery: Delivery) -> bool:
        raise AssertionError("a stream takes nothing back")

    async def close(self, timeout: float) -> None:
        if self in self._broker.readings:
            self._broker.readings.remove(self)
