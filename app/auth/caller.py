"""Caller: whose request it is, what it may and how much, as whoever serves the request asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from app.auth.addresses import network_of
from app.auth.lasting import Lasting, Needs
from app.auth.policy import Policy
from app.auth.rates import Rates
from app.domain.errors import Forbidden, InvalidCredentials, Unauthenticated, UnknownDestination
from app.domain.principal import ANONYMOUS, Principal, Verb
from app.domain.uri import MqUri

T = TypeVar("T")

_WHO = "this needs credentials: Authorization: Bearer and a token"


class Rights(Protocol):
    """What a caller asks of (see Authority)."""

    is_open: bool
    hides: bool
    policy: Policy
    lasting: Lasting
    rates: Rates

    def check(self, principal: Principal) -> None:
        """Raises InvalidCredentials where what recognised it does not hold any more."""

    def refusal(self, reason: str) -> InvalidCredentials:
        """The error to raise."""

    def denied(self, reason: str) -> None:
        """Count it."""


class Caller:
    """What it may is asked anew each time: the policy may be another one."""

    __slots__ = ("_changes", "_rights", "address", "principal")

    def __init__(self, rights: Rights, principal: Principal, address: str = "") -> None:
        self._rights = rights
        self._changes = rights.lasting.changes
        self.principal = principal
        self.address = address

    @property
    def label(self) -> str:
        """The name by which limits, idempotency and logs know it."""
        return self.principal.label

    @property
    def _key(self) -> str:
        """Those nobody knows are told apart by where they are; no principal has a slash."""
        return f"address/{network_of(self.address)}" if self.principal.is_anonymous else self.principal.label

    # What it may.

    def may(self, verb: Verb, uri: MqUri) -> bool:
        """Whether a rule allows it."""
        rights = self._rights
        return rights.is_open or rights.policy.rule(self.principal, verb, uri) is not None

    def require(self, verb: Verb, uri: MqUri) -> None:
        """Raises Unauthenticated, Forbidden or, where that is hidden, UnknownDestination."""
        if not self.may(verb, uri):
            self.refuse(f"{verb} {uri}", UnknownDestination(f"{uri} is not declared"))

    def refuse(self, what: str, hidden: Exception) -> None:
        """Raises Unauthenticated, Forbidden or, where that is hidden, `hidden`."""
        self.require_known()
        self._rights.denied("forbidden")
        if self._rights.hides:
            raise hidden
        raise Forbidden(f"{self.label} may not {what}")

    def require_known(self) -> None:
        """Raises Unauthenticated where nobody knows who it is, and somebody asks."""
        if self.principal.is_anonymous and not self._rights.is_open:
            self._rights.denied("missing")
            raise Unauthenticated(_WHO)

    def require_meant(self) -> None:
        """Raises Unauthenticated where nobody knows who it is, and no rule is about such."""
        if not self._rights.policy.means_anonymous:
            self.require_known()

    def sees(self, uri: MqUri) -> bool:
        """Whether it may look at this destination."""
        return self.may(Verb.LOOK, uri)

    def sees_service(self, service: str) -> bool:
        """Whether it may look at some destination of the service."""
        rights = self._rights
        return rights.is_open or rights.policy.sees_service(self.principal, service)

    def may_look(self) -> bool:
        """Whether there is anything it may look at."""
        rights = self._rights
        return rights.is_open or rights.policy.allows_anywhere(self.principal, Verb.LOOK)

    # For how long.

    def require_still(self, verb: Verb, uri: MqUri) -> None:
        """As `require`, after something that took time: credentials may be over too; raises InvalidCredentials."""
        rights, until = self._rights, self.principal.until
        unchanged = self.principal.way and rights.lasting.changes == self._changes
        if rights.is_open or (unchanged and (until is None or until > time.time())):
            return
        rights.check(self.principal)
        self.require(verb, uri)

    def lasting(self, needs: Needs, end: Callable[[str], None]) -> Callable[[], None]:
        """`end` is called with a reason when this is not allowed any more; what is returned forgets it."""
        if self._rights.is_open:
            return _nothing
        return self._rights.lasting.begin(self.principal, needs, end)

    async def while_allowed(self, needs: Needs, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled when it is not allowed any more; raises InvalidCredentials then."""
        if self._rights.is_open:
            return await work
        reasons: list[str] = []
        try:
            # In this task, not in one of its own: a result that is there when somebody cancels must not be lost.
            async with asyncio.timeout(None) as limit:

                def end(reason: str) -> None:
                    reasons.append(reason)
                    limit.reschedule(asyncio.get_running_loop().time())

                with contextlib.ExitStack() as stack:
                    stack.callback(self.lasting(needs, end))
                    return await work
        except TimeoutError:
            if reasons:
                raise self.lapsed(reasons[0]) from None
            raise

    def lapsed(self, reason: str) -> InvalidCredentials | Forbidden:
        """The error for what was allowed when it began."""
        if reason == "forbidden":
            self._rights.denied(reason)
            return Forbidden(f"{self.label} may not do this any more")
        return self._rights.refusal(reason)

    # How much.

    def check_rate(self) -> None:
        """Raises RateLimited, before anything of a message is read."""
        if self._rights.rates.are_limited:
            self._rights.rates.check(self._key)

    def send(self, messages: int, size: int) -> None:
        """Count messages that are about to be sent, and bytes of their bodies; raises RateLimited."""
        if self._rights.rates.are_limited:
            self._rights.rates.take(self._key, messages, size)

    async def send_paced(self, size: int) -> None:
        """As `send` for one of many, waiting for its turn."""
        if self._rights.rates.are_limited:
            await self._rights.rates.pace(self._key)
            self._rights.rates.take(self._key, 1, size)


def _nothing() -> None:
    """Stands for forgetting where nothing is remembered: everybody may go on for ever."""


class _Nobody:
    """The rights of a request whose caller is not known yet: none."""

    is_open = False
    hides = False
    policy = Policy([])
    lasting = Lasting(lambda _principal, _needs: "forbidden", lambda _principal: None)
    rates = Rates(None, None)

    def check(self, principal: Principal) -> None:
        raise Unauthenticated(_WHO)

    def refusal(self, reason: str) -> InvalidCredentials:
        return InvalidCredentials(_WHO, reason=reason)

    def denied(self, reason: str) -> None:
        """Nobody counts."""


#: Stands for the caller until the request has one.
NOBODY = Caller(_Nobody(), ANONYMOUS)
