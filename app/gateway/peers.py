"""The other replicas: what workers say of leases that are there is told to them, and only once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.domain.lease import ELSEWHERE, Settled, Settlement
from app.gateway.peer_channel import Outcome, Peer, PeerChannel, PeerFailed
from app.gateway.peer_directory import Hosts, PeerDirectory
from app.telemetry.metrics import Metrics
from app.wire.peer import Question

#: Seconds for everything: finding the owner, asking it, and once more where it has moved.
FORWARD_SECONDS = 5.0
#: A connection that its peer closed just now costs one try, and a peer that was replaced another.
_TRIES = 2


class Peers:
    """Tells the owner of leases what was said of them, over a channel that only replicas have."""

    def __init__(self, key: bytes, hosts: Hosts, metrics: Metrics, *, tls: bool) -> None:
        self._channel = PeerChannel(key, metrics, tls=tls)
        self._directory = PeerDirectory(hosts, self._channel.ask)
        self._leases = metrics.forwarded_leases

    def reload(self, hosts: Hosts) -> None:
        """Other peers are configured."""
        self._directory.reload(hosts)

    async def close(self, seconds: float) -> None:
        """Nobody is asked any more."""
        self._directory.close()
        await self._channel.close(seconds)

    async def settle(
        self, owner: str, settlement: Settlement, leases: Sequence[str], request_id: str
    ) -> Sequence[Settled]:
        """What the owner says to each, in their order; `elsewhere` for all where it does not say so in time."""
        question = Question(to=owner, settlement=settlement, leases=leases)
        try:
            async with asyncio.timeout(FORWARD_SECONDS):
                settled = await self._settle(question, request_id)
        except TimeoutError:
            settled = None
        found = [ELSEWHERE] * len(leases) if settled is None else settled
        for one in found:
            self._leases.labels(settlement.verb, one.result).inc()
        return found

    async def _settle(self, question: Question, request_id: str) -> Sequence[Settled] | None:
        for _ in range(_TRIES):
            one = await self._directory.find(question.to)
            if one is None:
                return None
            try:
                answer = await self._channel.ask(one, question, request_id)
            except PeerFailed as failed:
                if failed.outcome not in (Outcome.REFUSED, Outcome.BUSY):
                    self._forget(one, question.to)
                if failed.outcome is not Outcome.UNREACHABLE:
                    return None
                continue
            if answer.instance == question.to:
                return answer.settled
            self._directory.learn(one, answer.instance)
        return None

    def _forget(self, one: Peer, instance: str) -> None:
        if one.instance == instance:  # nobody has learnt better meanwhile
            self._directory.learn(one, "")
