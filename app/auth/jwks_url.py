"""The keys an issuer publishes, fetched in the background and kept while it cannot be reached."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from app.auth.jwk_set import KeySet, TooLarge, UnusableSet, parse_set
from app.auth.jwks_fetch import FETCH_SECONDS, FetchFailed, JwksFetch, LookUp, Outcome, look_up
from app.auth.jwks_pace import FIRST_REST, LONGEST_REST, FetchPace
from app.config.jwt import JwtSettings
from app.domain.errors import KeysUnavailable

logger = logging.getLogger("mq_gateway.jwks")

#: Requests (count) that may wait for a fetch; each does so for no longer than a fetch may take.
MAX_WAITING = 100


def _ignore(outcome: Outcome) -> None:
    """Nobody counts."""


def unheard() -> None:
    """Nobody has to know."""


class JwksUrl:
    """One task fetches, `run`: never two fetches at a time. `count` hears what became of each."""

    def __init__(
        self,
        url: str,
        settings: JwtSettings,
        *,
        count: Callable[[Outcome], None] = _ignore,
        look_up: LookUp = look_up,
        on_change: Callable[[], None] = unheard,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = FETCH_SECONDS,
        first_rest: float = FIRST_REST,
        longest_rest: float = LONGEST_REST,
    ) -> None:
        self._allowed = frozenset(settings.algorithms)
        self._max_age = settings.jwks_max_age
        self._count = count
        self._on_change = on_change
        self._clock = clock
        self._seconds = seconds
        self._fetch = JwksFetch(url, look_up=look_up, seconds=seconds)
        # Also where keys grow old sooner than they are to be refreshed, there is a second attempt before they do.
        refresh = min(settings.jwks_refresh, settings.jwks_max_age / 2)
        self._pace = FetchPace(refresh, clock=clock, first=first_rest, longest=longest_rest)
        self._set: KeySet | None = None
        self._fetched = -math.inf
        self._last: Outcome | None = None
        self._running = self._fetching = False
        self._wanted = asyncio.Event()
        self._round = asyncio.Event()
        self._waiting = 0

    @property
    def age(self) -> float:
        """Seconds since the issuer last said which keys are good; infinite where it never did."""
        return self._clock() - self._fetched

    def current(self) -> KeySet:
        """The keys that are good now; raises KeysUnavailable."""
        if self._set is None:
            raise KeysUnavailable("the issuer's keys were never had")
        if self.age > self._max_age:
            raise KeysUnavailable("the issuer's keys are older than auth.jwt.jwks_max_age")
        return self._set

    async def renewed(self) -> bool:
        """Whether there are other keys, or keys again, after a fetch: the one under way, or one that may be made now.

        False at once while fetches rest, and where too many wait already: whoever makes tokens up asks the issuer
        nothing.
        """
        under_way = self._fetching or self._wanted.is_set()
        if not self._running or not (under_way or self._pace.may_fetch) or self._waiting >= MAX_WAITING:
            return False
        before = self._set, self.age > self._max_age
        if not self._fetching:
            self._wanted.set()
        await self._end_of_round()
        return (self._set, self.age > self._max_age) != before

    async def _end_of_round(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._round.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Fetch at once, then when it is time or asked for; to be cancelled."""
        self._running = True
        try:
            while True:
                await self._one_round()
                await self._rest()
        finally:
            self._running = False
            self._finish_round()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._pace.until_due):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _one_round(self) -> None:
        asked = self._wanted.is_set()
        self._fetching = True
        try:
            self._tell(*await self._attempt(asked))
        except Exception:
            self._pace.failed()
            self._count(Outcome.FAILED)
            logger.exception("fetching the keys at %s failed", self._fetch.where)
        finally:
            self._finish_round()

    def _finish_round(self) -> None:
        self._fetching = False
        self._wanted.clear()
        self._round.set()
        self._round = asyncio.Event()

    async def _attempt(self, asked: bool) -> tuple[Outcome, str]:
        """Fetch once, and take what came if it can be used; what became of it, and why."""
        try:
            found = parse_set(await self._fetch(), self._allowed)
        except FetchFailed as failed:
            outcome, why = failed.outcome, str(failed)
        except UnusableSet as unusable:
            outcome, why = Outcome.TOO_LARGE if isinstance(unusable, TooLarge) else Outcome.NONSENSE, str(unusable)
        else:
            return self._take(found, asked), ""
        self._pace.failed()
        return outcome, why

    def _take(self, found: KeySet, asked: bool) -> Outcome:
        known = frozenset() if self._set is None else self._set.names
        told = () if self._set is None else self._set.left_out
        self._fetched = self._clock()
        if found.names - known:
            self._pace.brought_news()
        else:
            self._pace.brought_none(asked=asked)
        for sentence in found.left_out if found.left_out != told else ():
            logger.warning("%s: %s", self._fetch.where, sentence)
        if found.names == known and found.left_out == told:
            return Outcome.UNCHANGED
        logger.info("keys at %s: %d new, %d withdrawn", self._fetch.where, *_difference(known, found.names))
        self._set = found
        self._on_change()
        return Outcome.OK

    def _tell(self, outcome: Outcome, why: str) -> None:
        self._count(outcome)
        if why and outcome is not self._last:
            logger.warning("the keys at %s could not be had (%s): %s", self._fetch.where, outcome.value, why)
        elif not why and self._last not in (None, Outcome.OK, Outcome.UNCHANGED):
            logger.info("the keys at %s can be had again", self._fetch.where)
        self._last = outcome


def _difference(old: frozenset[str], new: frozenset[str]) -> tuple[int, int]:
    return len(new - old), len(old - new)
