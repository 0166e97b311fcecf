"""`python -m tests.chaos`: one run; exit code 0 all held, 1 something did not, 2 it could not run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import uvloop

from tests.brokers.run import Run
from tests.chaos.cast import Cast
from tests.chaos.faults import Scheduler, plan
from tests.chaos.report import Report
from tests.chaos.settings import ChaosSettings
from tests.chaos.site import Site
from tests.chaos.soak import Soak
from tests.chaos.target import calm, missing, tortured


async def chaos(settings: ChaosSettings, run: Run) -> Report:
    """Start the brokers, run, stop everything."""
    async with _site(settings, run) as site:
        cast = Cast(site, settings.seed)
        faults = plan(settings.seed, settings.seconds)
        soak = Soak(site, cast, Scheduler(site, site.broker, cast.poisoner, faults))
        await soak.run()
        return Report(settings, soak)


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
    # As Ctrl-C: everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run.begin()
    print(f"chaos for {settings.seconds:g} s on {settings.broker}, CHAOS_SEED={settings.seed}", flush=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(chaos(settings, run))
        return report.publish()
    finally:
        run.end()


if __name__ == "__main__":
    sys.exit(main())
