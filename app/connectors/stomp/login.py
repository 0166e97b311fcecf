"""Who we are at the broker, and why it does not want us."""

from __future__ import annotations

import re

from stomp.utils import Frame

from app.config.settings import ServiceSettings
from app.connectors.stomp.frames import body_of
from app.domain.link import LinkFailed, LinkFault

_LINE_END = re.compile(r"[\r\n\0]")
_MAX_ERROR_TEXT = 500
_SHORTEST_SECRET = 6


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


def error_text(frame: Frame, settings: ServiceSettings | None) -> str:
    """What the broker says in an ERROR: its `message` header and body, on one line, cut; without our password."""
    text = f"{frame.headers.get('message', '')}: {body_of(frame).decode(errors='replace')}"
    password = "" if settings is None or settings.password is None else settings.password.get_secret_value()
    # One that is no secret, such as guest's, may be a part of what has to be read.
    if settings is not None and len(password) >= _SHORTEST_SECRET and password != settings.user:
        for spelling in (password, password.replace("\\", "\\\\")):
            text = text.replace(spelling, "***")
    return " ".join(text.split()).strip(": ")[:_MAX_ERROR_TEXT]


def refused_login(text: str) -> LinkFailed:
    """The reason in an ERROR that came instead of CONNECTED."""
    lower = text.lower()
    if "virtual host" in lower or "vhost" in lower:
        return LinkFailed(LinkFault.VHOST_DENIED, text)
    if "version" in lower:
        return LinkFailed(LinkFault.VERSION, text)
    return LinkFailed(LinkFault.AUTH_FAILED, text)
