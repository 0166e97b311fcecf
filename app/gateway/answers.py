"""What workers say of leases, whichever replica has them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.config.settings import ServerSettings, Settings
from app.domain.lease import ELSEWHERE, Settled, Settlement
from app.gateway.budget import Budget
from app.gateway.peers import Peers
from app.gateway.takings import Takings
from app.telemetry.metrics import Metrics
from app.wire.keys import derived
from app.wire.peer import Answer, Question

#: Bytes held for each character of a lease that is settled elsewhere: of the request, in the list, and what is sent.
_COPIES = 3


class Answers:
    """Settles what is here, and has the owners settle the rest, where replicas share a secret."""

    def __init__(self, takings: Takings, budget: Budget, settings: Settings, metrics: Metrics) -> None:
        self._takings = takings
        self._budget = budget
        self._server = settings.server
        self._lease_max = settings.limits.lease_max
        secret = settings.auth.secret
        #: Signs what replicas say to each other; None where there are no others.
        self.key = None if secret is None else derived(secret, "peers")
        self._peers = None
        if self.key is not None:
            server = settings.server
            self._peers = Peers(self.key, server.peer_addresses(), metrics, tls=server.tls.is_on)

    def reload(self, server: ServerSettings) -> ServerSettings:
        """Take over the peers; returns the settings in force, whose other options are as they were."""
        if self._peers is not None:
            self._server = self._server.model_copy(update={"peers": server.peers})
            self._peers.reload(self._server.peer_addresses())
        return self._server

    async def close(self, seconds: float) -> None:
        """At shutdown."""
        if self._peers is not None:
            await self._peers.close(seconds)

    async def say(self, settlement: Settlement, leases: Sequence[str], request_id: str) -> Sequence[Settled]:
        """What becomes of each, in their order, in FORWARD_SECONDS at most; raises Overloaded, and nothing was done."""
        peers = self._peers
        if peers is None:
            return self._settle(settlement, leases)
        theirs = self._theirs(settlement, leases)
        if not theirs:
            return self._settle(settlement, leases)
        size = sum(len(leases[at]) for places in theirs.values() for at in places)
        with self._budget.reserve(settlement.mq_uri.service, _COPIES * size):
            return await self._together(peers, settlement, leases, theirs, request_id)

    def _theirs(self, settlement: Settlement, leases: Sequence[str]) -> Mapping[str, list[int]]:
        """The places of the leases of each other replica."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for at, lease in enumerate(leases):
            owner = self._takings.other_owner(settlement, lease)
            if owner is not None:
                found[owner].append(at)
        return found

    async def _together(
        self,
        peers: Peers,
        settlement: Settlement,
        leases: Sequence[str],
        theirs: Mapping[str, list[int]],
        request_id: str,
    ) -> Sequence[Settled]:
        """Ours at once, and all owners asked at the same time, each for its leases."""
        far = {at for places in theirs.values() for at in places}
        results = [
            ELSEWHERE if at in far else self._takings.settle(settlement, lease) for at, lease in enumerate(leases)
        ]
        said = await asyncio.gather(
            *(
                peers.settle(owner, settlement, [leases[at] for at in places], request_id)
                for owner, places in theirs.items()
            )
        )
        for places, settled in zip(theirs.values(), said, strict=True):
            for at, one in zip(places, settled, strict=True):
                results[at] = one
        return results

    def hear(self, question: Question) -> Answer:
        """What a replica is answered: only what is here is settled, and nothing is asked of a third one."""
        settlement = question.settlement
        if settlement is None or question.to != self._takings.instance:
            return Answer(self._takings.instance)
        seconds = None if settlement.seconds is None else min(settlement.seconds, self._lease_max)
        within = replace(settlement, delay=min(settlement.delay, self._lease_max), seconds=seconds)
        return Answer(self._takings.instance, self._settle(within, question.leases))

    def _settle(self, settlement: Settlement, leases: Sequence[str]) -> Sequence[Settled]:
        return [self._takings.settle(settlement, lease) for lease in leases]
