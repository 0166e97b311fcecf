"""Where the keys of an issuer come from: a file, or a URL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from app.auth.jwk_set import MAX_DOCUMENT, KeySet, UnusableSet, parse_set
from app.auth.jwks_fetch import LookUp, Outcome, look_up
from app.auth.jwks_url import JwksUrl, unheard
from app.config.jwt import JwtSettings
from app.telemetry.metrics import Metrics

logger = logging.getLogger("mq_gateway.jwks")

__all__ = ["JwksFile", "JwksUrl", "KeySource", "LookUp", "Outcome", "UnusableSet", "open_keys"]


class KeySource(Protocol):
    """Keys that may change while they are used."""

    def current(self) -> KeySet:
        """The keys that are good now; raises KeysUnavailable."""

    async def renewed(self) -> bool:
        """Try to get newer keys; whether there are any."""


class JwksFile:
    """A file with a JWK Set; raises UnusableSet where it cannot be used when it is opened."""

    def __init__(self, path: Path, settings: JwtSettings) -> None:
        self._path = path
        self._allowed = frozenset(settings.algorithms)
        self._set = self._read()

    def current(self) -> KeySet:
        """The keys of the file as it last could be used."""
        return self._set

    async def renewed(self) -> bool:
        """False: whoever watches the file finds out."""
        return False

    def reread(self) -> bool:
        """Whether the file has other keys now, which are used from then on. Blocks; raises UnusableSet."""
        found = self._read()
        changed = found.names != self._set.names
        self._set = found
        return changed

    def _read(self) -> KeySet:
        try:
            with self._path.open("rb") as file:
                found = parse_set(file.read(MAX_DOCUMENT + 1), self._allowed)
        except OSError as error:
            raise UnusableSet(f"{self._path}: {error.strerror or type(error).__name__}") from None
        except UnusableSet as error:
            raise UnusableSet(f"{self._path}: {error}") from None
        for sentence in found.left_out:
            logger.warning("%s: %s", self._path, sentence)
        return found


def open_keys(
    settings: JwtSettings, metrics: Metrics, *, look_up: LookUp = look_up, on_change: Callable[[], None] = unheard
) -> JwksFile | JwksUrl:
    """The source that the settings name. A JwksUrl has to be run, and calls `on_change` when it has other keys.

    Raises UnusableSet for a file.
    """
    if settings.jwks_file is not None:
        return JwksFile(settings.jwks_file, settings)
    keys = JwksUrl(settings.jwks_url or "", settings, count=_counting(metrics), look_up=look_up, on_change=on_change)
    metrics.jwks_age_seconds.set_function(lambda: keys.age)
    return keys


def _counting(metrics: Metrics) -> Callable[[Outcome], None]:
    def count(outcome: Outcome) -> None:
        metrics.jwks_fetches.labels(outcome.value).inc()

    return count
