"""SIGHUP: the configuration is read anew, and what cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from app.auth.authority import Authority
from app.config.errors import ConfigError
from app.config.loader import Loaded
from app.config.settings import Settings
from app.gateway.gateway import Gateway
from app.gateway.registry import Change

logger = logging.getLogger("mq_gateway.reload")

#: Seconds for reading files: a folder over the network may hang.
LOAD_SECONDS = 30.0
#: Sections that count from the next start on.
_FIXED = ("server", "auth", "limits")
#: But this one.
_AT_ONCE = ("auth", "policy")

Load = Callable[[], Loaded]


class Reloader:
    """Reads with `load`, as at the start, and hands the services to the gateway, the policy to `authority`."""

    def __init__(self, load: Load, gateway: Gateway, authority: Authority) -> None:
        self._load = load
        self._authority = authority
        self._gateway = gateway
        self._success = gateway.metrics.config_reload_success

    async def __call__(self) -> bool:
        """Reload once; False where nothing has changed because the configuration cannot be used. Raises nothing."""
        try:
            # Reading blocks, and a thread that hangs costs a thread.
            async with asyncio.timeout(LOAD_SECONDS):
                loaded = await asyncio.to_thread(self._load)
            change = await self._gateway.reload(loaded.settings)
        except ConfigError as error:
            for line in str(error).splitlines():
                logger.error("%s", line)  # noqa: TRY400 - the operator's to mend, no defect of ours
        except TimeoutError:
            logger.error("the configuration could not be read within %g s", LOAD_SECONDS)  # noqa: TRY400
        except Exception:
            logger.exception("reloading failed")
        else:
            self._authority.adopt(loaded.settings.auth.policy)
            self._tell(loaded, change)
            self._success.set(1)
            return True
        logger.error("the configuration stays as it was")
        self._success.set(0)
        return False

    def _tell(self, loaded: Loaded, change: Change) -> None:
        for warning in loaded.warnings:
            logger.warning("%s", warning)
        later = sorted(_differences(self._gateway.settings, loaded.settings))
        if later:
            logger.warning("of what changed, this counts from the next start on: %s", ", ".join(later))
        parts = (("added", change.added), ("changed", change.changed), ("removed", change.removed))
        words = [f"{what} {', '.join(names)}" for what, names in parts if names]
        logger.info("configuration reloaded: %s; unchanged: %d", "; ".join(words) or "no news", len(change.unchanged))


def _differences(present: Settings, loaded: Settings) -> Iterator[str]:
    """Names of options outside the services that differ."""
    for section in _FIXED:
        old, new = getattr(present, section), getattr(loaded, section)
        for option in type(old).model_fields:
            if (section, option) != _AT_ONCE and getattr(old, option) != getattr(new, option):
                yield f"{section}.{option}"
    if present.auth.secret_file == loaded.auth.secret_file and present.auth.secret != loaded.auth.secret:
        yield "auth.secret_file, which holds another secret"
