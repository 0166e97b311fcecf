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

from app.config.settings import Settings
from app.http1.descriptors import connections_for
from app.http1.protocol import GatewayProtocol
from app.http1.rules import GatewayState, Rules
from app.http1.sockets import listen, reset, url_of

logger = logging.getLogger("mq_gateway.server")

App = Callable[..., Awaitable[None]]
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
    host, port = settings.server.host, settings.server.port
    try:
        sockets = listen(host, port)
    except OSError as error:
        logger.error("cannot listen on %s port %d: %s", host, port, error.strerror or error)  # noqa: TRY400
        return 1
    connections = connections_for(settings.limits.streams)
    rules = Rules.of(settings.server, settings.limits, connections=connections)
    server = GatewayServer(app, settings, rules, on_started or _ignore)
    with server.capture_signals(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets))
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
        super().__init__(_config(app, settings))
        self.server_state = GatewayState(rules)
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

    # -- serving --

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves on the bound `sockets` until told to stop; drains also when it is cancelled."""
        self._loop = asyncio.get_running_loop()
        if self.should_exit:  # a signal came before there was a loop
            self._see_signal()
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self._tell_time()
        try:
            await self.startup(sockets)
            if self.started:
                await self._work()
        finally:
            if self.started:
                await self.shutdown(sockets)

    async def _work(self) -> None:
        reloading = asyncio.create_task(self._reload(), name="reload")
        try:
            await self._stop.wait()
        finally:
            reloading.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then accepts. `exit_code` is 1 where the application would not start."""
        await self._until_forced(self.lifespan.startup(), None)
        if self.lifespan.should_exit:
            self.exit_code = 1
        if self.lifespan.should_exit or self.force_exit:
            return
        try:
            await self._listen(sockets or [])
        except OSError as error:  # another process was quicker
            logger.error("cannot listen: %s", error.strerror or error)  # noqa: TRY400
            await self._end_lifespan()
            self.exit_code = 1
            return
        self.started = True
        if not self.should_exit and sockets:
            url = url_of(sockets[0])
            logger.info("listening on %s", url)
            self._on_started(url)

    async def _listen(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._connection, sock=each, backlog=self.config.backlog) for each in sockets
        ]

    def _connection(self) -> GatewayProtocol:
        return GatewayProtocol(self.config, self.server_state, self.lifespan.state)

    def _tell_time(self) -> None:
        """Sets the Date header (RFC 9110 section 6.6.1) and comes back in a second."""
        date = (b"date", formatdate(usegmt=True).encode())
        self.server_state.default_headers = [date, *self.config.encoded_headers]
        asyncio.get_running_loop().call_later(1.0, self._tell_time)

    # -- the end --

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The drain: bounded by drain_delay + drain_seconds + 2 x TASK_SECONDS + LIFESPAN_SECONDS."""
        seconds = self._settings.drain_seconds
        logger.info("draining %d connections, at most %g s", len(self.server_state.connections), seconds)
        drain = asyncio.create_task(self._begin_drain())
        await self._until_forced(asyncio.sleep(self._settings.drain_delay), None)
        self._stop_listening(sockets or [])
        if not await self._until_forced(self._emptied(drain), seconds):
            logger.warning("cutting off %d connections", len(self.server_state.connections))
        drain.cancel()
        for each in list(self.server_state.connections):
            reset(each.transport)
        await self._end_requests()
        await self._end_lifespan()

    async def _begin_drain(self) -> None:
        drain: Drain | None = getattr(getattr(self._app, "state", None), "gateway_drain", None)
        if drain is None:
            return
        try:
            await drain()
        except Exception:
            logger.exception("the drain failed; connections are cut off at its deadline")

    def _stop_listening(self, sockets: list[socket.socket]) -> None:
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _emptied(self, drain: asyncio.Task[None]) -> None:
        while self.server_state.connections:
            self.server_state.emptied.clear()
            await self.server_state.emptied.wait()
        await asyncio.wait({drain, *self.server_state.tasks})

    async def _end_requests(self) -> None:
        tasks = self.server_state.tasks
        if tasks and not self.force_exit:
            await asyncio.wait(tasks, timeout=TASK_SECONDS)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TASK_SECONDS)

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


def _config(app: App, settings: Settings) -> uvicorn.Config:
    proxies = settings.server.trusted_proxies
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("server", "mq-gateway")],
        # Only with proxies to trust: else this would be one more call for every request.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        root_path=settings.server.root_path,
    )
