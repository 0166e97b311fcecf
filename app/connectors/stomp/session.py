"""One authenticated STOMP connection: an epoch. Frames in become receipts, messages and refusals."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from stomp import constants as stomp
from stomp.protocol import Protocol12
from stomp.utils import Frame, calculate_heartbeats

from app.config.settings import ServiceSettings
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.confirms import Confirms, Pending
from app.connectors.stomp.dialect import Dialect, Headers, recognise
from app.connectors.stomp.frames import body_of
from app.connectors.stomp.transport import StompTransport
from app.domain.errors import BrokerRejected, ConnectionLost
from app.domain.link import LinkFailed, LinkFault
from app.domain.uri import MqUri

logger = logging.getLogger("mq_gateway.stomp")

_LINE_END = re.compile(r"[\r\n\0]")
_QUOTED = re.compile(r"'([^']*)'")
_MAX_ERROR_TEXT = 500


@dataclass(frozen=True, slots=True)
class Route:
    """Where the MESSAGEs of one subscription go; `path` is its STOMP destination."""

    path: str
    acknowledge: bool
    on_message: Callable[[Frame], None]
    on_cancelled: Callable[[str], None]


class Session:
    """Made by `connect`; ends with `closed`, which resolves to the reason and never fails."""

    def __init__(self, epoch: int, address: Address, on_event: Callable[[str], None]) -> None:
        self.epoch = epoch
        self.address = address
        self.confirms = Confirms()
        self.dialect = Dialect()
        self.closed: asyncio.Future[LinkFailed] = asyncio.get_running_loop().create_future()
        #: Destinations whose queue arguments went out on this connection.
        self.declared: set[str] = set()
        #: What the destinations of this service are called here; for reply-to.
        self.known_paths: dict[str, MqUri] = {}
        #: The latest ERROR that could not be tied to a request; explains a close that follows.
        self.last_error: str | None = None
        self.unattributed = 0
        #: Told of an ERROR that names a subscription nobody holds any more (see returns.py).
        self.on_orphan: Callable[[str], None] = lambda _subscription: None
        self.on_tag: Callable[[str], None] = lambda _message_id: None
        self._routes: dict[str, Route] = {}
        self._last_id = 0
        self._on_event = on_event
        self._connected: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self.transport = StompTransport(self._on_frame, self._on_closed)
        self._protocol = Protocol12(self.transport, heartbeats=(0, 0))

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    # Opening and closing.

    async def connect(
        self, settings: ServiceSettings, context: ssl.SSLContext | None, *, escaped: bool = False
    ) -> None:
        """TCP, TLS and CONNECT; the caller sets the deadline. Raises LinkFailed, OSError, ssl.SSLError.

        `escaped` doubles the backslashes of the login, against the specification but as RabbitMQ reads it.
        """
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
        self.transport.start_heartbeats(send_every / 1000, expect_every / 1000)

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

    # Frames out. Each registers its receipt before it is written.

    def send(self, path: str, body: bytes, content_type: str, headers: Headers, *, confirm: bool) -> Pending | None:
        """SEND; the receipt to wait for, or None without `confirm`."""
        pending = self.confirms.expect(path) if confirm else None
        if pending is not None:
            headers[stomp.HDR_RECEIPT] = pending.receipt
        self._protocol.send(path, body, content_type, headers)
        return pending

    def subscribe(self, route: Route, headers: Headers) -> tuple[str, Pending]:
        """SUBSCRIBE under an id that no epoch had before; the id and the receipt to wait for."""
        self._last_id += 1
        subscription = f"{self.epoch}-{self._last_id}"
        self._routes[subscription] = route
        pending = self.confirms.expect(route.path)
        ack = "client-individual" if route.acknowledge else "auto"
        self._protocol.subscribe(route.path, subscription, ack, headers, receipt=pending.receipt)
        return subscription, pending

    def unsubscribe(self, subscription: str) -> Pending:
        """UNSUBSCRIBE; messages that are already under way still come until its RECEIPT."""
        pending = self.confirms.expect()
        self._protocol.unsubscribe(subscription, receipt=pending.receipt)
        return pending

    def drop_route(self, subscription: str) -> None:
        self._routes.pop(subscription, None)

    def ack(self, token: str) -> None:
        self._protocol.ack(token)

    def nack(self, token: str) -> None:
        """Put back on the queue (RabbitMQ)."""
        self._protocol.nack(token, requeue="true")

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
            self._on_event("late_receipt")

    def _on_message(self, frame: Frame) -> None:
        self.on_tag(frame.headers.get(stomp.HDR_MESSAGE_ID, ""))
        route = self._routes.get(frame.headers.get(stomp.HDR_SUBSCRIPTION, ""))
        if route is None:
            self._on_event("message_without_subscription")
            return
        try:
            route.on_message(frame)
        except Exception:  # one consumer's defect must not end the connection everybody shares
            self._on_event("listener_failed")
            logger.exception("a listener of %s failed", route.path)

    def _on_error(self, frame: Frame) -> None:
        text = error_text(frame)
        if not self._connected.done():
            self._connected.set_exception(_refused_login(text))
            return
        route = self._routes.pop(frame.headers.get(stomp.HDR_SUBSCRIPTION, ""), None)
        if route is not None:
            route.on_cancelled(text)
        elif not self._refuse_culprit(frame.headers.get("receipt-id", ""), text):
            self.last_error = text
            self.unattributed += 1
            self._on_event("error_unattributed")

    def _refuse_culprit(self, receipt: str, text: str) -> bool:
        """End the one request that this ERROR is about, if there is exactly one."""
        named = self.confirms.with_id(receipt)
        culprits = [named] if named is not None else self._mentioned(text)
        if len(culprits) == 1:
            self.confirms.refuse(culprits[0], BrokerRejected(f"the broker refused: {text}"))
            return True
        return self._is_orphan(text)

    def _mentioned(self, text: str) -> list[Pending]:
        # RabbitMQ's ERROR carries no receipt-id, but quotes the queue, exchange or key it is about.
        quoted = set(_QUOTED.findall(text))
        return [
            pending
            for pending in self.confirms
            if quoted & {self.dialect.unquote(part) for part in pending.path.split("/")[2:]}
        ]

    def _is_orphan(self, text: str) -> bool:
        if "no current subscription with tag" not in text:
            return False
        for quoted in _QUOTED.findall(text):
            self.on_orphan(quoted.removeprefix("T_"))
        return True

    def _on_closed(self, fault: LinkFailed) -> None:
        if self.last_error is not None and fault.fault is LinkFault.CLOSED_BY_BROKER:
            fault = LinkFailed(fault.fault, f"{fault}; before that it said: {self.last_error}")
        if not self._connected.done():
            self._connected.set_exception(fault)
            self._connected.exception()  # whoever waits gets it too; nobody may be waiting
        if not self.closed.done():
            self.closed.set_result(fault)
        self.confirms.fail_all(ConnectionLost, f"the connection was lost before the broker confirmed: {fault}")


def login_of(settings: ServiceSettings) -> tuple[str, str | None, str | None, str | None]:
    """Virtual host, user, password and client id; raises LinkFailed where one would end its line in CONNECT."""
    password = settings.password.get_secret_value() if settings.password is not None else None
    login = (settings.vhost, settings.user, password, settings.client_id)
    if any(value is not None and _LINE_END.search(value) for value in login):
        raise LinkFailed(LinkFault.AUTH_FAILED, "vhost, user, password or client_id has a line end or NUL")
    return login


def has_backslash(settings: ServiceSettings) -> bool:
    """Whether brokers may read this login differently."""
    return any(value is not None and "\\" in value for value in login_of(settings))


def error_text(frame: Frame) -> str:
    """What the broker says in an ERROR: its `message` header and body, on one line, cut."""
    body = body_of(frame).decode(errors="replace")
    text = " ".join(f"{frame.headers.get('message', '')}: {body}".split()).strip(": ")
    return text[:_MAX_ERROR_TEXT]


def _refused_login(text: str) -> LinkFailed:
    lower = text.lower()
    if "virtual host" in lower or "vhost" in lower:
        return LinkFailed(LinkFault.VHOST_DENIED, text)
    if "version" in lower:
        return LinkFailed(LinkFault.VERSION, text)
    return LinkFailed(LinkFault.AUTH_FAILED, text)
