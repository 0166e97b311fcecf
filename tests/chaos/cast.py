"""Everybody who takes part: how many of each kind, how fast, and what they count."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from tests.chaos.clients import Follower, Publisher, QueueFollower, TopicFollower
from tests.chaos.ledger import Flow, QueueBooks
from tests.chaos.offenders import Poisoner, Staller
from tests.chaos.probes import OwnLag, Probe, Watch
from tests.chaos.site import Site
from tests.chaos.witness import Witness

#: Bytes of a message of `bulk` and of `torn`.
_BULK = 8 << 10
_TORN = 4 << 10
#: Bytes a second a slow reader takes: half of what is published to `bulk`.
_SLOW = 60_000
_NEWS, _WORK, _KEPT, _BULKY, _TEARING = "Topics/news", "Queues/work", "Queues/kept", "Topics/bulk", "Queues/torn"


class Cast:
    """About 330 messages a second: a third of what two cores with two brokers on them can do."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.news, self.bulk = Flow("Topics/news"), Flow("Topics/bulk")
        self.work, self.kept, self.torn = (QueueBooks(Flow(name)) for name in (_WORK, _KEPT, _TEARING))
        self.publishers = [
            *(self._publisher(self.news, 40) for _ in range(4)),
            *(self._publisher(self.work.flow, 40, persistent=True) for _ in range(2)),
            *(self._publisher(self.kept.flow, 15, persistent=True) for _ in range(2)),
            self._publisher(self.bulk, 15, padding=_BULK),
            self._publisher(self.torn.flow, 15, padding=_TORN, persistent=True),
        ]
        self.readers = [
            self._reader("reader", seed),
            self._reader("EventSource", seed, event_source=True),
            self._reader("resuming reader", seed + 1, cut_after=(1.0, 6.0)),
        ]
        slow = Witness(self.bulk, "slow reader")
        self.slow = TopicFollower(site, f"/mq/mq/{_BULKY}", slow, bytes_per_second=_SLOW)
        self.workers = [QueueFollower(site, f"/mq/mq/{_WORK}", self.work) for _ in range(2)]
        self.tearer = QueueFollower(site, f"/mq/mq/{_TEARING}", self.torn, cut_after=(0.5, 4.0), seed=seed + 2)
        self.stallers = [
            Staller(site, self.bulk, f"/mq/mq/{_BULKY}", _BULK),
            # It is one of two consumers.
            Staller(site, self.torn.flow, f"/mq/mq/{_TEARING}", _TORN // 2),
        ]
        self.poisoner = Poisoner(site, seed + 3)
        self.probes = [Probe(site, "mem"), Probe(site, "calm")]
        self.live = Watch(site, "/health/live", 0.5)
        self.metrics = Watch(site, "/metrics", 2.0)
        self.lag = OwnLag()

    def _publisher(self, flow: Flow, rate: float, *, padding: int = 100, persistent: bool = False) -> Publisher:
        path = f"/mq/mq/{flow.destination}"
        return Publisher(self.site, flow, path, rate, padding=padding, persistent=persistent)

    def _reader(
        self, label: str, seed: int, *, event_source: bool = False, cut_after: tuple[float, float] | None = None
    ) -> TopicFollower:
        witness = Witness(self.news, label)
        return TopicFollower(
            self.site, f"/mq/mq/{_NEWS}", witness, event_source=event_source, cut_after=cut_after, seed=seed
        )

    @property
    def books(self) -> list[QueueBooks]:
        return [self.work, self.kept, self.torn]

    @property
    def flows(self) -> list[Flow]:
        return [self.news, self.bulk, *(books.flow for books in self.books), *(probe.flow for probe in self.probes)]

    @property
    def all_publishers(self) -> list[Publisher]:
        return [*self.publishers, *(probe.publisher for probe in self.probes)]

    @property
    def followers(self) -> list[TopicFollower]:
        """Readers of Topics that are to have everything at the end."""
        return [*self.readers, *(probe.follower for probe in self.probes)]

    @property
    def witnesses(self) -> list[Witness]:
        return [*(each.witness for each in self.followers), self.slow.witness]

    def senders(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What ends by itself when the site stops."""
        yield from (each.run() for each in self.all_publishers)
        yield self.poisoner.run()

    def takers(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What is cancelled when everything was sent."""
        readers: list[Follower] = [*self.followers, self.slow, self.tearer]
        yield from (each.run() for each in readers)
        yield from (each.run() for each in self.stallers)
        yield from (each.run() for each in (self.live, self.metrics, self.lag))
