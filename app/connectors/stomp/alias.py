"""`consume_from: all`: a connection for consuming to every address behind the hosts, as they come and go.

For a DNS alias over brokers that know nothing of each other: what was published at one of them is only there
(docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Container, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import Destination, Listener, Subscription
from app.connectors.stomp.addresses import Address, look_up, one_each
from app.connectors.stomp.member import Member, Neighbours
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.connectors.stomp.spread import Spread
from app.connectors.stomp.succession import RETIRE_SECONDS
from app.domain.errors import BrokerUnavailable, Draining
from app.domain.link import Connections, LinkError, LinkFault, LinkState, LinkStatus, either

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds between two look-ups of the names.
LOOK_UP_EVERY = 30.0
#: The same while no address is known.
LOOK_UP_SOON = 2.0
#: Look-ups in a row without an address before its connection ends: an answer may be a selection, and until then
#: queues empty to which nobody publishes any more.
GONE_AFTER = 3
#: Addresses (count) that get a connection.
MAX_MEMBERS = 64
#: Epochs of one member: no two connections of an alias share one.
_EPOCHS = 1_000_000_000


class Alias:
    """The members, and the subscriptions that live on all of them."""

    def __init__(self, service: str, settings: ServiceSettings, quarantine: Quarantine, neighbours: Neighbours) -> None:
        #: What is still being done; ended by the connector.
        self.chores: set[asyncio.Task[None]] = set()
        self._service = service
        self._settings = settings
        self._quarantine = quarantine
        self._neighbours = neighbours
        self._members: dict[tuple[str, int], Member] = {}
        #: Of hosts that are not configured any more.
        self._unlisted: set[Member] = set()
        self._spreads: dict[Spread, None] = {}
        self._met = 0
        #: Addresses (count) for which there is no room.
        self._left_out = 0
        self._since = time.time()
        #: Time of the loop of the latest look-up that counts for those that are missing.
        self._counted_at = -math.inf
        self._error: LinkError | None = None
        #: The configuration is another one: what it does not have goes at once.
        self._is_strict = False
        self._is_over = False
        self._change = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def members(self) -> list[Member]:
        return list(self._members.values())

    @property
    def status(self) -> LinkStatus:
        """Up while any of them is."""
        if not self._members:
            return LinkStatus(state=self._state, since=self._since, last_error=self._error, several=Connections(0, 0))
        status = either([member.link.status for member in self.members])
        if self._error is None or (status.last_error is not None and status.last_error.at > self._error.at):
            return status
        return replace(status, last_error=self._error)

    @property
    def _state(self) -> LinkState:
        """Of nobody."""
        if self._is_over:
            return LinkState.CLOSED
        return LinkState.CONNECTING if self._error is None else LinkState.DOWN

    # Addresses.

    async def run(self) -> None:
        """Follow the names until cancelled."""
        while True:
            self._hurry.clear()
            try:
                await self._follow()
            except Exception:  # a defect of ours must not leave the service with the addresses of today for ever
                logger.exception("%s: following its names failed", self._service)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_UP_EVERY if self._members else LOOK_UP_SOON):
                    await self._hurry.wait()

    async def _follow(self) -> None:
        settings, strict = self._settings, self._is_strict
        found, failures = await look_up(settings.addresses(), settings.connect_timeout)
        if self._is_over or settings is not self._settings:
            return
        self._note(failures)
        for member in self._unlisted.intersection(self.members):
            self._leave(member)
        self._unlisted.clear()
        present = {(address.ip, address.port): address for address in one_each(found)}
        self._meet([address for key, address in present.items() if key not in self._members])
        self._count(present, failures, strict=strict)
        self._is_strict = strict and bool(failures)
        self._changed()

    def _note(self, failures: dict[str, str]) -> None:
        text = "; ".join(f"{name}: {why}" for name, why in failures.items())
        if text and (self._error is None or self._error.detail != text):
            logger.warning("%s: names: %s", self._service, text)
        self._error = LinkError(LinkFault.DNS, text, time.time()) if text else None

    def _meet(self, strangers: list[Address]) -> None:
        # An answer may lack a family, and the other one of a broker we have is no other broker.
        ipv4 = _with_ipv4(member.address for member in self.members)
        strangers = [each for each in strangers if not (each.is_ipv6 and (each.name, each.port) in ipv4)]
        room = MAX_MEMBERS - len(self._members)
        for address in strangers[:room]:
            self._met += 1
            self._members[address.ip, address.port] = Member(
                self._service,
                address,
                self._settings,
                self._quarantine,
                self._neighbours,
                epoch=self._met * _EPOCHS,
                joined=self._joined,
            )
        if len(strangers[room:]) != self._left_out:
            self._left_out = len(strangers[room:])
            logger.warning("%s: %d addresses too many: not connected", self._service, self._left_out)

    def _count(self, present: Mapping[tuple[str, int], Address], failures: Container[str], *, strict: bool) -> None:
        now = asyncio.get_running_loop().time()
        is_due = now - self._counted_at >= LOOK_UP_EVERY / 2  # reloads in a row are no look-ups in a row
        self._counted_at = now if is_due else self._counted_at
        ipv4 = _with_ipv4(present.values())
        for key, member in list(self._members.items()):
            address = member.address
            if key in present:
                member.missed = 0
            elif address.name not in failures:
                member.missed += is_due
                # Met while its name had no IPv4 address: each message of a Topic would come twice.
                is_twin = address.is_ipv6 and (address.name, address.port) in ipv4
                if strict or is_twin or member.missed >= GONE_AFTER:
                    self._leave(member)

    def _leave(self, member: Member) -> None:
        logger.info("%s: nobody is behind %s any more", self._service, member.address)
        del self._members[member.address.ip, member.address.port]
        self.chore(self._part_with(member))

    async def _part_with(self, member: Member) -> None:
        try:
            async with asyncio.timeout(RETIRE_SECONDS):
                await asyncio.gather(*(spread.part_from(member) for spread in list(self._spreads)))
                await member.leave()
        except TimeoutError:
            logger.warning("%s: %s did not answer in time, and is left", self._service, member.address)
        finally:
            await member.end()

    def _changed(self) -> None:
        self._wake()
        self._neighbours.changed(self._state, self._state)

    def _wake(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    # Subscriptions.

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        """As MQConnector.subscribe, at every broker that takes it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        members = await self._promising(timeout)
        spread = Spread(
            destination,
            listener,
            acknowledge=acknowledge,
            prefetch=prefetch,
            on_end=self._forget,
            spawn=self.chore,
        )
        self._spreads[spread] = None
        await spread.open(members, deadline - loop.time())
        return spread

    async def _promising(self, timeout: float) -> list[Member]:
        """Those to subscribe at, at least one; who is away is not waited for where another one is there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._state is LinkState.CONNECTING and not self._members:
                    await self._change.wait()
        if not self._members:
            if self._is_over:
                raise Draining(f"{self._service} takes no new work", retry_after=1)
            why = self._error.detail if self._error is not None else "its names are not resolved yet"
            raise BrokerUnavailable(f"no broker of {self._service} is known: {why}", retry_after=LOOK_UP_SOON)
        return [member for member in self.members if member.is_promising] or self.members

    def _joined(self, member: Member, session: Session) -> None:
        if member in self._members.values():
            for spread in list(self._spreads):
                spread.join(member, session)

    def _forget(self, spread: Spread) -> None:
        self._spreads.pop(spread, None)

    def chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this in the background; ended by the connector."""
        task = asyncio.get_running_loop().create_task(work)
        self.chores.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.chores.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for it has it too; nobody may be waiting

    # What the connector tells.

    def settle(self, settings: ServiceSettings, *, connect: bool) -> None:
        """Other settings; with `connect` the connections are made anew, to what the names are now.

        Hosts that are not listed any more never see the new login; they are left with the next look-up, also where
        another name stands for the same address: certificates are for names.
        """
        hosts, before = settings.addresses(), self._settings.addresses()
        self._settings = settings
        for member in self.members:
            host = (member.address.name, member.address.port)
            member.consumers.settings = settings
            # What an earlier reload removed stays so: `before` is not what it was met by.
            if member in self._unlisted or host[0] not in dict(hosts) or (host in before and host not in hosts):
                self._unlisted.add(member)
            elif connect:
                member.reconfigure(settings)
        self._is_strict = self._is_strict or connect
        self.retry()

    def retry(self) -> None:
        """Look the names up now."""
        self._hurry.set()

    def drain(self) -> None:
        """No new addresses; their links are drained with the others."""
        self._is_over = True
        self._wake()

    @property
    def work(self) -> set[asyncio.Task[None]]:
        """All that is still being done, for its members too."""
        return self.chores.union(*(member.consumers.chores for member in self.members))


def _with_ipv4(addresses: Iterable[Address]) -> set[tuple[str, int]]:
    """Names and ports; of these the addresses of IPv6 are of the same brokers."""
    return {(address.name, address.port) for address in addresses if not address.is_ipv6}
