"""Files that say who may do what are read again by themselves, soon after they change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.auth.authority import Authority
from app.auth.jwks import JwksFile, JwksUrl, LookUp, open_keys
from app.auth.jwks_fetch import look_up
from app.auth.token_file import TokenFileError
from app.config.errors import ConfigError
from app.config.loader import Loaded
from app.telemetry.metrics import Metrics

logger = logging.getLogger("mq_gateway.auth")

#: Seconds between two looks. A stream ends within 5 s of a revocation, and this is the longest part of it.
LOOK_SECONDS = 1.0
#: Seconds after which a file system that does not answer is complained about.
SLOW_SECONDS = 30.0

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Watched:
    """Files, and what is to be done when one of them is another one than before.

    `read` runs in a thread; what it returns is called on the loop, None where it found no news.
    """

    what: str
    paths: tuple[Path, ...]
    read: Callable[[], Callable[[], None] | None]


class Watch:
    """Looks at the files of a token file, a JWK Set and a policy. What cannot be read changes nothing."""

    def __init__(self, watched: Iterable[Watched], metrics: Metrics) -> None:
        #: As they were when they were read last; at first they never were.
        self._watched: dict[Watched, tuple[Stamp, ...]] = dict.fromkeys(watched, ())
        #: What could not be read, and what was said of it.
        self._failing: dict[Watched, str] = {}
        self._success = metrics.config_reload_success

    async def run(self) -> None:
        """Until cancelled."""
        while self._watched:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read what has changed, and take it over."""
        # In a thread: a file system may hang. What it does not say is not known, and everything stays as it is.
        looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        while not (await asyncio.wait({looking}, timeout=SLOW_SECONDS))[0]:
            logger.error("the file system does not answer: tokens, keys and policy cannot be read again")
        try:
            for apply in looking.result():
                apply()
        except Exception:
            logger.exception("what was read again could not be taken over")

    def _look(self) -> list[Callable[[], None]]:
        """What is to be done on the loop, of everything that has changed."""
        news = []
        for each, before in self._watched.items():
            now = _stamps(each.paths)
            # What could not be read is tried again though nothing has changed: for want of a descriptor, say.
            if now != before or each in self._failing:
                self._watched[each] = now
                news.append(self._read(each, anew=now != before))
        return news

    def _read(self, watched: Watched, *, anew: bool) -> Callable[[], None]:
        try:
            adopt = watched.read()
        except (TokenFileError, ConfigError, OSError, ValueError, RecursionError) as error:
            return partial(self._complain, watched, str(error), anew=anew)

        def apply() -> None:
            self._failing.pop(watched, None)
            if not self._failing:
                self._success.set(1)
            if adopt is not None:
                adopt()
                logger.info("%s was read again", watched.what)

        return apply

    def _complain(self, watched: Watched, why: str, *, anew: bool) -> None:
        """Once for each content, not each second."""
        self._success.set(0)
        if anew or self._failing.get(watched) != why:
            logger.error("%s stays as it was: %s", watched.what, "; ".join(why.splitlines()))
        self._failing[watched] = why


def _stamps(paths: Iterable[Path]) -> tuple[Stamp, ...]:
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def token_file(authority: Authority) -> Iterable[Watched]:
    """The file of tokens."""
    tokens = authority.tokens
    if tokens is None:
        return

    def read() -> Callable[[], None]:
        entries = tokens.read()
        if not entries and not tokens.path.stat().st_size:
            raise TokenFileError(f"{tokens.path}: empty, as if it were being written")

        def adopt() -> None:
            tokens.adopt(entries)
            authority.lasting.review()

        return adopt

    yield Watched("the file of tokens", (tokens.path,), read)


def key_file(authority: Authority) -> Iterable[Watched]:
    """The file of keys."""
    settings = authority.settings.jwt
    if settings is None or settings.jwks_file is None or not authority.settings.uses_jwt:
        return
    path = settings.jwks_file
    opened: list[JwksFile] = []

    def read() -> Callable[[], None] | None:
        if opened:
            return authority.lasting.review if opened[0].reread() else None
        opened.append(JwksFile(path, settings))
        return partial(authority.use_keys, opened[0])

    yield Watched("the file of keys", (path,), read)


def policy(authority: Authority, files: tuple[Path, ...], load: Callable[[], Loaded] | None) -> Iterable[Watched]:
    """The policy, which stands in the configuration; of that nothing else is taken over here."""
    if load is None or not files or authority.is_open:
        return

    def read() -> Callable[[], None] | None:
        rules = load().settings.auth.policy
        return None if rules == authority.rules else lambda: authority.adopt(rules)

    yield Watched("the policy", files, read)


@contextlib.asynccontextmanager
async def watching(
    authority: Authority,
    metrics: Metrics,
    files: Sequence[Path],
    load: Callable[[], Loaded] | None,
    look_up: LookUp = look_up,
) -> AsyncIterator[None]:
    """Read what there is, and watch it for the length of the block. Raises nothing: who cannot be known stays out.

    `look_up` finds the addresses of an issuer.
    """
    watched = (*token_file(authority), *key_file(authority), *policy(authority, tuple(files), load))
    watch = Watch(watched, metrics)
    await watch.look()
    tasks = [asyncio.create_task(watch.run(), name="auth-watch")]
    jwt = authority.settings.jwt
    if jwt is not None and jwt.jwks_file is None and authority.settings.uses_jwt:
        keys = open_keys(jwt, metrics, look_up=look_up, on_change=authority.lasting.review)
        authority.use_keys(keys)
        if isinstance(keys, JwksUrl):
            tasks.append(asyncio.create_task(keys.run(), name="jwks"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
