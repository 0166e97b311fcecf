"""The name of one process: no other one has it, before, beside or after it."""

from __future__ import annotations

import os
import secrets
import socket


def new_instance() -> str:
    """The machine, the process and a random part: `host-pid-hex`."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
