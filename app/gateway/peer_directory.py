"""Which replica is where: found by asking every address, when a lease names an instance nobody has told us of yet.

An instance is one process: its name is never that of another one, before or after it. So what was found stays true
until the address does not answer or another instance answers there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from app.gateway.peer_channel import Outcome, Peer, PeerFailed
from app.gateway.peer_names import PeerNames
from app.wire.peer import Answer, Question

logger = logging.getLogger("mq_gateway.peers")

#: Seconds from the end of a round to the next: leases of replicas that are gone are no reason to ask all the time.
PAUSE_SECONDS = 1.0
#: Seconds in which who stalled or is no replica is not asked again who it is: it could keep us busy with nothing.
REST_SECONDS = 10.0
#: Addresses (count) that are asked.
MAX_ADDRESSES = 64

Ask = Callable[[Peer, Question], Awaitable[Answer]]
#: Address and port.
Key = tuple[str, int]
#: What stands in the configuration: names or addresses, and ports.
Hosts = Sequence[tuple[str, int]]


class PeerDirectory:
    """Looks for instances among the addresses behind `hosts`, in rounds that all who look at the same time share."""

    def __init__(self, hosts: Hosts, ask: Ask) -> None:
        self._hosts = tuple(hosts)
        self._ask = ask
        self._names = PeerNames()
        self._peers: dict[Key, Peer] = {}
        self._wanted: dict[str, asyncio.Future[Peer | None]] = {}
        #: Of these, the ones that were wanted before the present round asked anybody.
        self._sought: frozenset[str] = frozenset()
        self._round: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def reload(self, hosts: Hosts) -> None:
        """Other peers are configured: whatever was found is found anew, and who looks is told of these."""
        if tuple(hosts) != self._hosts:
            self._hosts = tuple(hosts)
            self._names.forget()
            self._peers = {}
            self._break_off()

    def close(self) -> None:
        """Nobody looks any more."""
        self._hosts = ()
        self._break_off()
        self._names.close()

    def _break_off(self) -> None:
        if self._round is not None:
            self._round.cancel()

    async def find(self, instance: str) -> Peer | None:
        """Where the instance is; None where no address that answers is its."""
        for one in self._peers.values():
            if one.instance == instance:
                return one
        if not self._hosts:
            return None
        loop = asyncio.get_running_loop()
        found = self._wanted.setdefault(instance, loop.create_future())
        self._begin()
        return await asyncio.shield(found)

    def _begin(self) -> None:
        if self._round is None:
            self._round = asyncio.get_running_loop().create_task(self._look(), name="peers")
            self._round.add_done_callback(self._ended)

    def learn(self, one: Peer, instance: str) -> None:
        """Who answered there; empty where nobody did."""
        one.instance = instance
        found = self._wanted.pop(instance, None)
        if found is not None and not found.done():
            found.set_result(one)

    async def _look(self) -> None:
        """Who is known is asked first; who is not listed any more may be draining, and stays as long as it answers."""
        await asyncio.sleep(self._not_before - asyncio.get_running_loop().time())
        self._sought = frozenset(self._wanted)
        peers = self._peers  # of these hosts: a reload begins with none
        asked = {key for key, one in peers.items() if one.instance}
        async with asyncio.TaskGroup() as group:
            for key in asked:
                group.create_task(self._who(peers[key]))
            for name, port in self._hosts:
                group.create_task(self._look_at(name, port, peers, asked))
        for key in peers.keys() - asked:
            del peers[key]

    async def _look_at(self, name: str, port: int, known: dict[Key, Peer], asked: set[Key]) -> None:
        """Ask at every address of the name that was not asked yet; a name that hangs holds up no other."""
        peers = []
        for address in await self._names.addresses(name, port):
            key = (address.ip, address.port)
            if key not in asked and len(asked) < MAX_ADDRESSES:
                asked.add(key)
                one = known.setdefault(key, Peer(address))
                if one.rests_until <= asyncio.get_running_loop().time():
                    peers.append(one)
        if len(asked) == MAX_ADDRESSES:
            logger.warning("there are %d addresses of peers; no more are asked", MAX_ADDRESSES)
        await asyncio.gather(*(self._who(one) for one in peers))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Who was sought and is still wanted was not found; who was wanted later has a round to come.

        So have all where other hosts are configured meanwhile.
        """
        self._round = None
        if not task.cancelled():
            self._not_before = asyncio.get_running_loop().time() + PAUSE_SECONDS
            if (error := task.exception()) is not None:
                logger.error("looking for peers failed", exc_info=error)
        sought = frozenset() if task.cancelled() else self._sought
        for instance in sought & self._wanted.keys() if self._hosts else [*self._wanted]:
            found = self._wanted.pop(instance)
            if not found.done():
                found.set_result(None)
        if self._wanted:
            self._begin()

    async def _who(self, one: Peer) -> None:
        try:
            answer = await self._ask(one, Question())
        except PeerFailed as failed:
            if failed.outcome in (Outcome.LATE, Outcome.NONSENSE):
                one.rests_until = asyncio.get_running_loop().time() + REST_SECONDS
            self.learn(one, "")
        else:
            self.learn(one, answer.instance)
