"""One authenticated STOMP connection: an epoch. Frames in become receipts, messages and refusals."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Iterable

from stomp import constants as stomp
from stomp.protocol import Protocol12
from stomp.utils import Frame, calculate_heartbeats

from app.config.settings import ServiceSettings
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.blame import Blame
from app.connectors.stomp.confirms import Confirms, Pending
from app.connectors.stomp.dialect import Dialect, Headers
from app.connectors.stomp.login import error_text, login_of, refused_login
from app.connectors.stomp.recognise import recognise
from app.connectors.stomp.route import Route
from app.connectors.stomp.transport import StompTransport
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost
from app.domain.link import LinkFailed, LinkFault
from app.domain.uri import MqUri

logger = logging.getLogger("mq_gateway.stomp")

_TAG = re.compile(r"no current subscription with tag 'T_([^']*)'")


class Session:
    """Made by `connect`; ends with `closed`, which resolves to the reason and never fails."""

    def __init__(self, epoch: int, address: Address, on_event: Callable[[str], None]) -> None:
        self.epoch = epoch
        self.address = address
        self.confirms = Confirms()
        self.dialect = Dialect()
        self.closed: asyncio.Future[LinkFailed] = asyncio.get_running_loop().create_future()
        #: What it was connected with.
        self.settings: ServiceSettings | None = None
        #: Takes no new work: another connection takes its place as soon as what is in flight has ended.
        self.retiring = False
        #: Another one has taken its place, and nobody is told of its end.
        self.replaced = False
        #: Destinations whose queue arguments went out on this connection, and what `declaring.mark` says.
        self.declared: set[str] = set()
        #: What the destinations of this service are called here; for reply-to.
        self.known_paths: dict[str, MqUri] = {}
        self.knows_all = False
        self.blame = Blame(self.confirms)
        #: Destinations that were in flight when the broker closed; see suspects.py.
        self.suspects: Iterable[str] = ()
        #: Told of an ERROR that names a subscription nobody holds any more (see returns.py).
        self.on_orphan: Callable[[str], None] = lambda _subscription: None
        #: Queues this connection takes for declared, and that are gone.
        self.stale: set[str] = set()
        #: Told of the destination of a subscription that the broker ended of its own accord.
        self.on_ended: Callable[[str], None] = lambda _path: None
        self.on_tag: Callable[[str], None] = lambda _message_id: None
        self._routes: dict[str, Route] = {}
        self._last_id = 0
        self.on_event = on_event
        self._connected: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self.transport = StompTransport(self._on_frame, self._on_closed)
        self._protocol = Protocol12(self.transport, heartbeats=(0, 0))

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    @property
    def takes_work(self) -> bool:
        return self.is_open and not self.retiring

    # Opening and closing.

    async def connect(
        self, settings: ServiceSettings, context: ssl.SSLContext | None, *, escaped: bool = False
    ) -> None:
        """TCP, TLS and CONNECT; the caller sets the deadline. Raises LinkFailed, OSError, ssl.SSLError.

        `escaped` doubles the backslashes of the login, against the specification but as RabbitMQ reads it.
        """
        self.settings = settings
        server_name = settings.tls.server_name if settings.tls is not None else None
        await self.transport.open(self.address, context, server_name)
        self._send_connect(settings, escaped=escaped)
        connected = await self._connected
        self.dialect = recognise(connected.headers.get("server", ""), settings.max_frame_bytes)
        if connected.headers.get("version") != "1.2":
            raise LinkFailed(LinkFault.VERSION, "the broker does not speak STOMP 1.2")
        self._start_heartbeats(connected.headers.get(stomp.HDR_HEARTBEAT, "0,0"), settings.heartbeat_ms)

    def _send_connect(self, settings: ServiceSettings, *, escaped: bool) -> None:
        vhost, user, password, client_id = (
            value.replace("\\", "\\\\") if escaped and value is not None else value for value in login_of(settings)
        )
        self.transport.vhost = vhost or "/"
        self.transport.current_host_and_port = (self.address.name, self.address.port)
        outgoing, incoming = settings.heartbeat_ms
        headers = {stomp.HDR_HEARTBEAT: f"{outgoing},{incoming}"}
        if client_id is not None:
            headers["client-id"] = client_id
        # CONNECT and not STOMP: only its headers go out without escapes, as section "Value Encoding" wants them.
        self._protocol.connect(user, password, headers=headers, with_connect_command=True)

    def _start_heartbeats(self, offered: str, wanted: tuple[int, int]) -> None:
        broker = tuple(part.strip() for part in offered.split(","))
        if len(broker) != 2 or not all(part.isdigit() for part in broker):
            raise LinkFailed(LinkFault.PROTOCOL, f"the broker offers the heart-beat {offered[:40]!r}")
        send_every, expect_every = calculate_heartbeats(broker, wanted)
        self.transport.start_heartbeats(send_every / 1000, expect_every / 1000, self.dialect.silent_intervals)

    async def disconnect(self) -> None:
        """The graceful end: DISCONNECT and its RECEIPT; the caller sets the deadline."""
        pending = self.confirms.expect()
        self._protocol.send_frame(stomp.CMD_DISCONNECT, {stomp.HDR_RECEIPT: pending.receipt})
        try:
            await pending.future
        except ConnectionLost:
            pass  # brokers may close before we read the RECEIPT
        finally:
            self.abort(LinkFailed(LinkFault.CLOSED_BY_BROKER, "disconnected"))

    def abort(self, fault: LinkFailed) -> None:
        """End at once."""
        self.transport.abort(fault)

    def known_uri(self, service: str, path: str) -> MqUri | None:
        """The mqURI behind a STOMP destination; None where none is declared, or `knows_all` and none can be."""
        known = self.known_paths.get(path)
        return self.dialect.uri_of(service, path) if known is None and self.knows_all else known

    # Frames out. Each registers its receipt before it is written.

    def send(
        self, path: str, body: bytes, content_type: str, headers: Headers, *, confirm: bool, named: bool = True
    ) -> Pending | None:
        """SEND; the receipt to wait for, or None without `confirm`. `named`: an ERROR quoting `path` may mean it."""
        self._check_open()
        pending = self.confirms.expect(path if named else "") if confirm else None
        if pending is None:
            self.blame.loosen(path)
        else:
            headers[stomp.HDR_RECEIPT] = pending.receipt
        self._protocol.send(path, body, content_type, headers)
        return pending

    def transact(self, command: str, transaction: str, *, confirm: bool = False) -> Pending | None:
        """BEGIN, COMMIT or ABORT; the receipt to wait for with `confirm`."""
        self._check_open()
        pending = self.confirms.expect() if confirm else None
        headers = {stomp.HDR_TRANSACTION: transaction}
        if pending is not None:
            headers[stomp.HDR_RECEIPT] = pending.receipt
        self._protocol.send_frame(command, headers)
        return pending

    def subscribe(self, route: Route, headers: Headers) -> tuple[str, Pending]:
        """SUBSCRIBE under an id that no epoch had before; the id and the receipt to wait for."""
        self._check_open()
        self._last_id += 1
        subscription = f"{self.epoch}-{self._last_id}"
        self._routes[subscription] = route
        pending = self.confirms.expect(route.path, route.queue)
        ack = "client-individual" if route.acknowledge else "auto"
        self._protocol.subscribe(route.path, subscription, ack, headers, receipt=pending.receipt)
        return subscription, pending

    def adopt(self, subscription: str, route: Route) -> None:
        """Where the MESSAGEs of a subscription go that the broker makes without a SUBSCRIBE."""
        self._routes[subscription] = route

    def unsubscribe(self, subscription: str) -> Pending:
        """UNSUBSCRIBE; messages that are already under way still come until its RECEIPT."""
        self._check_open()
        pending = self.confirms.expect()
        self._protocol.unsubscribe(subscription, receipt=pending.receipt)
        return pending

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this answer any longer."""
        if not pending.future.done() or pending.future.cancelled():
            self.blame.loosen(pending.path)
        self.confirms.forget(pending)

    def _check_open(self) -> None:
        """What a closed connection is given would be lost without a word; raises BrokerUnavailable."""
        if not self.is_open:
            raise BrokerUnavailable("the link was lost just now", retry_after=1)

    def drop_route(self, subscription: str) -> None:
        self._routes.pop(subscription, None)

    def ack(self, token: str) -> None:
        self._protocol.ack(token)

    def nack(self, token: str) -> None:
        """Put back on the queue (RabbitMQ)."""
        self._protocol.nack(token, requeue="true")

    def reject(self, token: str) -> None:
        """To the dead-letter exchange of the queue, if it has one (RabbitMQ), or the dead-letter queue (ActiveMQ)."""
        self._protocol.nack(token, requeue="false")

    def confirmed_nack(self, token: str) -> Pending:
        """The same with a receipt, which tells that all NACKs before it were taken too."""
        self._check_open()
        pending = self.confirms.expect()
        self._protocol.nack(token, receipt=pending.receipt, requeue="true")
        return pending

    def confirmed_ack(self, token: str) -> Pending:
        """ACK with a receipt."""
        self._check_open()
        pending = self.confirms.expect()
        self._protocol.ack(token, receipt=pending.receipt)
        return pending

    # Frames in.

    def _on_frame(self, frame: Frame) -> None:
        match frame.cmd:
            case "MESSAGE":
                self._on_message(frame)
            case "RECEIPT":
                self._on_receipt(frame)
            case "ERROR":
                self._on_error(frame)
            case "CONNECTED":
                self._on_connected(frame)
            case command:
                raise LinkFailed(LinkFault.PROTOCOL, f"the broker sent the command {command[:40]!r}")

    def _on_connected(self, frame: Frame) -> None:
        if not self._connected.done():
            self._connected.set_result(frame)

    def _on_receipt(self, frame: Frame) -> None:
        if not self.confirms.resolve(frame.headers.get("receipt-id", "")):
            self.on_event("late_receipt")

    def _on_message(self, frame: Frame) -> None:
        self.on_tag(frame.headers.get(stomp.HDR_MESSAGE_ID, ""))
        route = self._routes.get(frame.headers.get(stomp.HDR_SUBSCRIPTION, ""))
        if route is None:
            self.on_event("message_without_subscription")
            return
        try:
            route.on_message(frame)
        except Exception:  # one consumer's defect must not end the connection everybody shares
            self.on_event("listener_failed")
            logger.exception("a listener of %s failed", route.path)

    def _on_error(self, frame: Frame) -> None:
        text = error_text(frame, self.settings)
        if not self._connected.done():
            self._connected.set_exception(refused_login(text))
            return
        route = self._routes.pop(frame.headers.get(stomp.HDR_SUBSCRIPTION, ""), None)
        if route is not None:
            route.on_cancelled(text)
            self.on_ended(route.path)
            return
        culprit = self.blame.culprit(frame.headers.get("receipt-id", ""), text, self.dialect.unquote)
        if culprit is not None:
            self.confirms.refuse(culprit, BrokerRejected(f"the broker refused: {text}"))
        elif self.dialect.ended_somebody(text):
            self.abort(LinkFailed(LinkFault.INTERNAL, f"reconnecting, for one consumer is gone: {text}"))
        elif not self._is_orphan(text):
            self.blame.unexplained(text)
            self.on_event("error_unattributed")

    def _is_orphan(self, text: str) -> bool:
        """Whether this is RabbitMQ's word for a message that was under way when its subscription ended."""
        found = _TAG.search(text)
        if found is not None:
            self.on_orphan(found[1])
        return found is not None

    def _on_closed(self, fault: LinkFailed) -> None:
        if fault.fault is LinkFault.CLOSED_BY_BROKER:
            self.suspects = self.blame.suspects()
            if self.blame.last_error is not None:
                fault = LinkFailed(fault.fault, f"{fault}; before that it said: {self.blame.last_error}")
        if not self._connected.done():
            self._connected.set_exception(fault)
            self._connected.exception()  # whoever waits gets it too; nobody may be waiting
        if not self.closed.done():
            self.closed.set_result(fault)
        self._routes.clear()  # nothing comes any more, and nobody's consumer is to live as long as this does
        self.confirms.fail_all(ConnectionLost, f"the connection was lost before the broker confirmed: {fault}")
