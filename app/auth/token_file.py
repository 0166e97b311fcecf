"""The file of API tokens: hashes only, as JSON, one entry for each token.

A token is 256 random bits, so that nobody can guess it from its SHA-256; a slow hash (for passwords people choose)
would make every request as slow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.principal import check_principal

#: What every token begins with, so that scanners for leaked secrets can find one.
PREFIX = "mqg_"
#: Bytes of a file, and tokens (count) in it.
MAX_BYTES = 16 << 20
MAX_TOKENS = 50_000

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
#: Bytes of a group's name, and groups (count) of a token.
_MAX_GROUP, _MAX_GROUPS = 255, 64
#: Unix time of the years that can be written: 1970 to 9999.
_LAST = 253_402_300_800
_MEMBERS = frozenset({"name", "principal", "hash", "groups", "created_at", "expires_at"})


class TokenFileError(Exception):
    """The file cannot be used; `str()` says why, without anything that is in it."""


class NoTokenFileError(TokenFileError):
    """There is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """One token. `hash` is `sha256:` and 64 hexadecimal digits; times are Unix time in seconds."""

    name: str
    principal: str
    hash: str
    groups: tuple[str, ...] = ()
    created_at: float | None = None
    expires_at: float | None = None

    def has_expired(self, now: float) -> bool:
        """Whether it is good no more at this Unix time."""
        return self.expires_at is not None and self.expires_at <= now


def new_token() -> str:
    """A token nobody has: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return "sha256:" + hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def entry_json(entry: TokenEntry) -> dict[str, Any]:
    """An entry as it stands in the file."""
    members: dict[str, Any] = {"name": entry.name, "hash": entry.hash}
    if entry.principal != entry.name:
        members["principal"] = entry.principal
    if entry.groups:
        members["groups"] = list(entry.groups)
    times = (("created_at", entry.created_at), ("expires_at", entry.expires_at))
    return members | {name: time_text(time) for name, time in times if time is not None}


def file_text(entries: Sequence[TokenEntry]) -> bytes:
    """A file with these entries; raises TokenFileError where they make none that could be read again."""
    text = json.dumps({"tokens": [entry_json(each) for each in entries]}, indent=2, ensure_ascii=False)
    data = text.encode(errors="surrogatepass") + b"\n"
    parse_tokens("the changed file", data)
    return data


def read_tokens(path: Path) -> list[TokenEntry]:
    """All entries; raises NoTokenFileError where there is no file, TokenFileError where it cannot be used."""
    try:
        # Nobody may ever write into a pipe; to open one must not wait for that.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TokenFileError(f"{path}: is not a regular file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NoTokenFileError(f"{path}: there is no such file; `mq-gateway token new NAME` makes it") from None
    except OSError as error:
        raise TokenFileError(f"{path}: {error.strerror or type(error).__name__}") from None
    return parse_tokens(str(path), data)


def parse_tokens(source: str, data: bytes) -> list[TokenEntry]:
    """The entries in the text of a file; raises TokenFileError with the number of the entry, from 1 on."""
    if len(data) > MAX_BYTES:
        raise TokenFileError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(data or b'{"tokens": []}')
    except (ValueError, RecursionError):
        raise TokenFileError(f"{source}: not valid JSON") from None
    entries = found.get("tokens") if isinstance(found, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_TOKENS:
        raise TokenFileError(f'{source}: must be {{"tokens": [...]}} with at most {MAX_TOKENS} of them')
    read = [_entry(f"{source}: token {number}", each) for number, each in enumerate(entries, 1)]
    for what, values in (("name", [each.name for each in read]), ("hash", [each.hash for each in read])):
        if len(set(values)) != len(values):
            raise TokenFileError(f"{source}: two tokens have the same {what}")
    return read


def _entry(place: str, value: object) -> TokenEntry:
    if not isinstance(value, dict):
        raise TokenFileError(f"{place}: is not an object")
    if not value.keys() <= _MEMBERS:
        raise TokenFileError(f"{place}: has members other than {', '.join(sorted(_MEMBERS))}")
    name, digest = value.get("name"), value.get("hash")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise TokenFileError(f"{place}: its hash is not sha256: and 64 hexadecimal digits")
    try:
        return TokenEntry(
            name=_name(name),
            principal=_name(value.get("principal", name)),
            hash=digest,
            groups=_groups(value.get("groups", [])),
            created_at=_time(value.get("created_at")),
            expires_at=_time(value.get("expires_at")),
        )
    except ValueError as error:
        raise TokenFileError(f"{place}: {error}") from None


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("name and principal are texts, and a name there must be")  # noqa: TRY004 - of a file
    return check_principal(value)


def _groups(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_GROUPS:
        raise ValueError(f"groups are a list of at most {_MAX_GROUPS} texts")
    return tuple(check_group(group) for group in value)


def check_group(value: object) -> str:
    """A group's name, which a policy writes after `group:`; raises ValueError with the rule."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value.encode()) <= _MAX_GROUP:
        return value
    raise ValueError(f"a group has 1 to {_MAX_GROUP} bytes without control characters")


def _time(value: object) -> float | None:
    return None if value is None else parse_time(value)


def parse_time(value: object) -> float:
    """Unix time of a time of RFC 3339; raises ValueError with an example."""
    try:
        # Python would take the date alone, and other separators than the T.
        when = datetime.fromisoformat(value.upper()) if isinstance(value, str) and _TIME.fullmatch(value) else None
    except ValueError:
        when = None
    if when is None or not 0 <= when.timestamp() < _LAST:
        raise ValueError("times are RFC 3339, such as 2030-01-02T03:04:05Z")
    return when.timestamp()


def time_text(seconds: float) -> str:
    """Unix time as RFC 3339 has it, in UTC; with a fraction of a second only where there is one."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
