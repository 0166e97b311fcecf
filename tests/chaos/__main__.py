"""`python -m tests.chaos`: one run. Exit code 0 all held, 1 something did not, 2 it cannot run here, 130 stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from tests.brokers.run import Run
from tests.chaos.cast import Cast
from tests.chaos.faults import Scheduler, plan
from tests.chaos.plot import svg
from tests.chaos.report import figures
from tests.chaos.settings import ChaosSettings
from tests.chaos.site import Site
from tests.chaos.soak import Soak
from tests.chaos.table import text
from tests.chaos.target import calm, missing, tortured

#: Where the gateway's log goes when something did not hold.
_KEPT = Path("var") / "chaos"
_STOPPED = 130


async def chaos(settings: ChaosSettings, run: Run) -> bool:
    """Start the brokers, run, report, stop everything; whether all held."""
    this = asyncio.current_task()
    assert this is not None
    # As Ctrl-C: everything that was started is ended.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with _site(settings, run) as site:
        cast = Cast(site, settings.seed)
        soak = Soak(site, cast, Scheduler(site, cast.poisoner, plan(settings.seed, settings.seconds)))
        held = False
        try:
            await soak.run()
            found = figures(settings, soak)
            held = not any(found["must be 0"].values())
            _publish(settings, soak, found)
        finally:
            if not held:
                _keep_log(site, settings.seed)
    return held


def _publish(settings: ChaosSettings, soak: Soak, found: dict[str, Any]) -> None:
    print(text(found), flush=True)
    if settings.report is not None:
        settings.report.write_text(json.dumps(found, indent=1) + "\n")
    if settings.plot is not None:
        settings.plot.write_text(svg(soak.trace, soak.site.started))


def _keep_log(site: Site, seed: int) -> None:
    if site.gateway.log.exists():
        _KEPT.mkdir(parents=True, exist_ok=True)
        kept = shutil.copy(site.gateway.log, _KEPT / f"gateway-{seed}.log")
        print(f"the gateway's log: {kept}", flush=True)


@contextlib.asynccontextmanager
async def _site(settings: ChaosSettings, run: Run) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        brokers = (tortured(settings, run), calm(run))
        for each in brokers:
            stack.push_async_callback(each.discard)
        await asyncio.gather(*(each.start() for each in brokers))
        site = Site(run.folder, *brokers, settings.seconds)
        stack.callback(site.gateway.discard)
        yield site


def main() -> int:
    """The exit code."""
    try:
        settings = ChaosSettings.from_environment()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if reason := missing(settings):
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    run = Run.begin()
    print(f"chaos for {settings.seconds:g} s on {settings.broker}, CHAOS_SEED={settings.seed}", flush=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            held = runner.run(chaos(settings, run))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", flush=True)
        return _STOPPED
    finally:
        run.end()
    print("chaos: all held" if held else "chaos: FAILED", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
