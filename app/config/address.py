"""Addresses as they stand in a configuration: `name`, `name:port`, `[v6 address]` or `[v6 address]:port`."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?)\]|(?P<name>[^\s\[\]:/]+))(?::(?P<port>[0-9]{1,5}))?"
)


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """Parse `name`, `name:port`, `[v6]` or `[v6]:port`; raises ValueError for anything else."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not `name`, `name:port` or `[v6 address]:port`")
    port = int(match["port"]) if match["port"] else default_port
    if match["port"] and not 0 < port < 65_536:
        raise ValueError(f"{text!r}: a port is 1 to 65535")
    return match["v6"] or match["name"], port
