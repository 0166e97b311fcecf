"""What a connection waits for."""

from __future__ import annotations

from enum import Enum


class Waiting(Enum):
    """What the server waits for; each has its own deadline."""

    HEAD = "head"  # the rest of a head, from its first byte on, or the first byte of a connection
    BODY = "body"  # the rest of a body, as long as it comes no slower than `app.domain.pace` says
    APP = "app"  # the application, which has its own deadlines
    IDLE = "idle"  # the next request
    DISCARD = "discard"  # the rest of a body after its answer is out
    LINGER = "linger"  # the client, to take what is unsent and close
