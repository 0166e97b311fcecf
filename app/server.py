"""The HTTP server as a process: binds, tells where, serves, and on a signal drains with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from email.utils import formatdate
from types import FrameType

import uvicorn
import uvloop

from app.api.context import Context
from app.config.settings import Settings
from app.http1.certificate import Certificate, CertificateError, load
from app.http1.certificate_watch import CertificateWatch
from app.http1.descriptors import connections_for
from app.http1.listener import App, CannotListen, bind, listeners
from app.http1.rules import GatewayState, Rules
from app.telemetry.metrics import Metrics

logger = logging.getLogger("mq_gateway.server")

Drain = Callable[[], Awaitable[None]]
Reload = Callable[[], Awaitable[bool]]

#: Seconds for requests to notice that their connection has been aborted, and again for their cancellation.
TASK_SECONDS = 1.0
#: Seconds for the application to close its links at the end, and where a second signal has come.
LIFESPAN_SECONDS = 10.0
FORCED_SECONDS = 1.0
#: Seconds beyond all deadlines after which the process is ended from outside the loop.
LAST_RESORT_SECONDS = 10.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(app: App, settings: Settings, on_started: Callable[[str], None] | None = None) -> int:
    """Serves `app` until SIGTERM or SIGINT, and returns the exit code.

    `on_started` gets the base URL, with the real port, when connections are accepted. At the signal the
    server calls `app.state.gateway_drain()` if there is one, keeps serving for `server.drain_delay`, stops
    listening, waits at most `server.drain_seconds` for requests and streams, aborts what is left, and ends
    the lifespan. A second signal skips the waiting. At SIGHUP it calls `app.state.gateway_reload()`.

    0: drained, also where stalled clients had to be cut off. 1: it could not listen, or the application
    failed to start or to stop; the log has one line that says why.
    """
    try:
        sockets, management = bind(settings.server)
        connections = connections_for(settings.limits.streams)
        rules = Rules.of(settings.server, settings.limits, connections=connections)
        server = GatewayServer(app, settings, rules, on_started or _ignore)
    except (CannotListen, CertificateError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the operator's to mend
        return 1
    with server.capture_signals(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets, management))
    return server.exit_code


def _ignore(url: str) -> None:
    """Nobody asked where the server listens."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server with our connections, our end, and no polling in between.

    uvicorn waits for open streams for ever before it lets the application end them, raises the signal again
    when all is done, and leaves a stalled reader's connection open.
    """

    server_state: GatewayState

    def __init__(self, app: App, settings: Settings, rules: Rules, on_started: Callable[[str], None]) -> None:
        """Raises CertificateError."""
        self._metrics = metrics = _metrics_of(app)
        management = getattr(getattr(app, "state", None), "management", app)
        self._main, self._management = listeners(
            app, management, settings.server, rules, lambda reason: metrics.refused_connections.labels(reason).inc()
        )
        super().__init__(self._main.config)
        self.server_state = self._main.state
        self.servers = self._main.servers
        self._watch: CertificateWatch | None = None
        if settings.server.tls.is_on:
            self._watch = CertificateWatch(settings.server.tls, self._take)
            self._take(load(settings.server.tls))
        #: What the process should exit with; valid once `serve` has returned.
        self.exit_code = 0
        self._app = app
        self._settings = settings.server
        self._on_started = on_started
        self._owns_process = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._hangup = asyncio.Event()

    # -- signals --

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles the signals until the loop is closed, and does not raise them again: we did what they ask."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._owns_process = True
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first call begins the drain, the second ends it."""
        if self.should_exit:
            self.force_exit = True
        else:
            self.should_exit = True
            if self._owns_process:
                self._arm_last_resort()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._see_signal)

    def _handle_hangup(self, _sig: int, _frame: FrameType | None) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hangup.set)

    async def _reload(self) -> None:
        """Reads the configuration anew at each SIGHUP; several while it is read are one."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            reload: Reload | None = getattr(getattr(self._app, "state", None), "gateway_reload", None)
            if reload is None:
                logger.warning("SIGHUP: this application has no configuration to read anew")
            else:
                await reload()

    def _see_signal(self) -> None:
        self._stop.set()
        if self.force_exit:
            self._force.set()

    def _arm_last_resort(self) -> None:
        """A thread of C code ends the process should Python itself hang, with a traceback that says where."""
        allowed = self._settings.drain_delay + self._settings.drain_seconds + LIFESPAN_SECONDS
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # no stderr
            faulthandler.dump_traceback_later(allowed + 2 * TASK_SECONDS + LAST_RESORT_SECONDS, exit=True)

    def _take(self, certificate: Certificate) -> None:
        self._main.certificate = certificate
        self._metrics.certificate_expiry.set(certificate.not_after)

    # -- serving --

    async def serve(
        self, sockets: list[socket.socket] | None = None, management: list[socket.socket] | None = None
    ) -> None:
        """Serves on the bound sockets until told to stop; drains also when it is cancelled."""
        self._loop = asyncio.get_running_loop()
        if self.should_exit:  # a signal came before there was a loop
            self._see_signal()
        self.lifespan = self.config.lifespan_class(self.config)
        self._tell_time()
        try:
            await self.startup(sockets, management)
            if self.started:
                await self._work()
        finally:
            if self.started:
                await self.shutdown(sockets)

    async def _work(self) -> None:
        reloading = asyncio.create_task(self._reload(), name="reload")
        if self._watch is not None:
            self._watch.start()
        try:
            await self._stop.wait()
        finally:
            reloading.cancel()

    async def startup(
        self, sockets: list[socket.socket] | None = None, management: list[socket.socket] | None = None
    ) -> None:
        """Starts the application, then accepts. `exit_code` is 1 where the application would not start."""
        await self._until_forced(self.lifespan.startup(), None)
        if self.lifespan.should_exit:
            self.exit_code = 1
        if self.lifespan.should_exit or self.force_exit:
            return
        try:
            await self._management.open(management or [], {})
            await self._main.open(sockets or [], self.lifespan.state)
        except OSError as error:  # another process was quicker
            logger.error("cannot listen: %s", error.strerror or error)  # noqa: TRY400
            await self._end_lifespan()
            self.exit_code = 1
            return
        self.started = True
        if not self.should_exit and self._main.url is not None:
            if self._management.url is not None:
                logger.info("health and metrics on %s", self._management.url)
            logger.info("listening on %s", self._main.url)
            self._on_started(self._main.url)

    def _tell_time(self) -> None:
        """Sets the Date header and comes back in a second."""
        date = formatdate(usegmt=True).encode()
        for listener in (self._main, self._management):
            listener.tell_time(date)
        asyncio.get_running_loop().call_later(1.0, self._tell_time)

    # -- the end --

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The drain: bounded by drain_delay + drain_seconds + 2 x TASK_SECONDS + LIFESPAN_SECONDS.

        Probes are answered to the end, and what they leave open holds nothing up.
        """
        seconds = self._settings.drain_seconds
        logger.info("draining %d connections, at most %g s", len(self.server_state.connections), seconds)
        drain = asyncio.create_task(self._begin_drain())
        await self._until_forced(asyncio.sleep(self._settings.drain_delay), None)
        self._main.stop()
        if not await self._until_forced(self._emptied(drain), seconds):
            logger.warning("cutting off %d connections", len(self.server_state.connections))
        drain.cancel()
        self._main.reset()
        await self._main.end_requests(0 if self.force_exit else TASK_SECONDS, TASK_SECONDS)
        await self._end_lifespan()
        self._management.stop()
        self._management.reset()
        await self._management.end_requests(0, FORCED_SECONDS)
        if self._watch is not None:
            self._watch.stop()

    async def _begin_drain(self) -> None:
        drain: Drain | None = getattr(getattr(self._app, "state", None), "gateway_drain", None)
        if drain is None:
            return
        try:
            await drain()
        except Exception:
            logger.exception("the drain failed; connections are cut off at its deadline")

    async def _emptied(self, drain: asyncio.Task[None]) -> None:
        await self._main.emptied()
        await asyncio.wait({drain, *self.server_state.tasks})

    async def _end_lifespan(self) -> None:
        stop = asyncio.create_task(self.lifespan.shutdown())
        await self._until_forced(asyncio.wait({stop}), LIFESPAN_SECONDS)
        if self.force_exit:
            await asyncio.wait({stop}, timeout=FORCED_SECONDS)
        if not stop.done():
            stop.cancel()
            logger.error("the application did not stop in time")
            self.exit_code = 0 if self.force_exit else 1
        if self.lifespan.should_exit:
            self.exit_code = 1

    async def _until_forced(self, work: Awaitable[object], seconds: float | None) -> bool:
        """Whether `work` was done before `seconds` were over or a second signal came; else it is cancelled."""
        task = asyncio.ensure_future(work)
        force = asyncio.create_task(self._force.wait())
        try:
            await asyncio.wait({task, force}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return task.done()
        finally:
            force.cancel()
            task.cancel()


def _metrics_of(app: App) -> Metrics:
    """Those of the application; what it has none of is counted for nobody."""
    context = getattr(getattr(app, "state", None), "context", None)
    return context.metrics if isinstance(context, Context) else Metrics()
