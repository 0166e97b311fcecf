"""Writes docs/reference/configuration.md from the settings classes: `python -m app.config.reference [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config.schema import option_names, sections_in
from app.config.section import Section
from app.config.settings import Settings

TARGET = Path("docs/reference/configuration.md")

_HEAD = """# Configuration reference

Made from the settings classes by `python -m app.config.reference`; do not edit.

Sources, later wins: defaults, the files given with `--config` in order (`.yaml`, `.yml`, `.toml`, `.cfg`), environment
variables, the command line. Maps merge, lists are replaced. Every value is text that its option casts, so
`password: 0123` keeps its zero. A relative path is relative to the file that names it. An unknown option is an error
in YAML and TOML.

In the environment `MQ_GATEWAY_SERVER__PORT=9000` sets `server.port`, likewise for `auth` and `limits`; lists are
written with commas or as JSON. `MQ_GATEWAY_SERVICES` holds JSON in the form of the section `services`, and is merged
into what the files say. Empty variables count as unset.

Without any file, and without `MQ_GATEWAY_SERVICES`, one service `demo` in memory is served, with `Queues/jobs` and
`Topics/events`.

## DIRAC's CFG files

Of a `.cfg` file only `/Resources/MQServices` is read (and `/DIRAC/Security` for the host certificate). Several such
files merge first and are then one source.

| DIRAC option | here |
|---|---|
| `MQType`, `Host`, `Port`, `VHost`, `User`, `Password` | `mq_type`, `host`, `port`, `vhost`, `user`, `password` |
| `SSLVersion` | any value: `tls` with TLS 1.2 or newer and verification; the value itself does not matter |
| `HostCertificate`, `HostKey` | `tls.cert_file`, `tls.key_file`; unset: where DIRAC looks for the host certificate |
| `ReconnectSleepInitial`, `…Increase`, `…Max`, `…Jitter` | `reconnect`; `max` is 120 if unset |
| `ReconnectAttemptsMax` | no effect: the gateway never gives up |
| `OutgoingHeartbeatMs`, `IncomingHeartbeatMs` | `heartbeat_ms` |
| `Timeout` | `connect_timeout` |
| `Queues/<name>`, `Topics/<name>` with `Acknowledgement`, `Persistent` | both false if unset, or as the service says |

Trusted authorities are those of `/etc/grid-security/certificates` if it exists, else the system's. Unknown options are
ignored, with a warning if the name is nearly a known one. A line that begins with `#` is a comment. DIRAC takes a `#`
after a value for a part of it; here it ends the value if white space precedes it, except in `User` and `Password`.
"""


def render() -> str:
    """The whole page in Markdown, one table per section."""
    return "\n".join([_HEAD.rstrip(), *(_table(path, section) for path, section in _walk("", Settings)), ""])


def _walk(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    yield path, section
    for name, field in section.model_fields.items():
        for inner in sections_in(field.annotation):
            named = f"{name}.<name>" if "dict[" in str(field.annotation) else name
            yield from _walk(f"{path}.{named}" if path else named, inner)


def _table(path: str, section: type[Section]) -> str:
    rows = [f"\n## {f'`{path}`' if path else 'Top level'}\n", f"{_line(section.__doc__)}\n"]
    rows += ["| option | type | default | meaning |", "|---|---|---|---|"]
    schema = section.model_json_schema()["properties"]
    for name, field in option_names(section).items():
        prop = schema[name]
        cells = (f"`{name}`", _type(prop), _default(prop), _line(field.description))
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(prop: Mapping[str, Any]) -> str:
    if "anyOf" in prop:
        return " or ".join(_type(inner) for inner in prop["anyOf"] if inner.get("type") != "null")
    if "enum" in prop or "const" in prop:
        return ", ".join(f"`{word}`" for word in prop.get("enum", [prop.get("const")]))
    if "$ref" in prop:
        return "section"
    if prop.get("type") == "array":
        return "list"
    if prop.get("type") == "object":
        return "map"
    return _scalar(prop) + _range(prop)


def _scalar(prop: Mapping[str, Any]) -> str:
    if prop.get("format") in ("path", "password"):
        return "path" if prop["format"] == "path" else "secret text"
    return {"integer": "whole number", "number": "number", "boolean": "true or false"}.get(prop["type"], "text")


def _range(prop: Mapping[str, Any]) -> str:
    low = f"> {prop['exclusiveMinimum']:g}" if "exclusiveMinimum" in prop else ""
    low = low or (f">= {prop['minimum']}" if "minimum" in prop else "")
    high = f"<= {prop['maximum']}" if "maximum" in prop else ""
    bounds = ", ".join(bound for bound in (low, high) if bound)
    return f", {bounds}" if bounds else ""


def _default(prop: Mapping[str, Any]) -> str:
    default = prop.get("default")
    if default is None:
        return "unset" if "default" in prop else "" if "$ref" in prop else "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    number = f"{default:g}" if isinstance(default, float) else f"{default}"
    return f"`{number}`" if number else "empty"


def main(arguments: list[str]) -> int:
    """Write the page to the file named, or to its place in the tree of the sources."""
    target = Path(arguments[0]) if arguments else TARGET
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
