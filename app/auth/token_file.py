"""The file of API tokens: hashes only, as JSON, one entry for each token.

A token is 256 random bits, so that nobody can guess it from its SHA-256; a slow hash (for passwords people choose)
would make every request as slow.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
_MEMBERS = frozenset({"name", "principal", "hash", "groups", "created_at", "expires_at"})


class TokenFileError(Exception):
    """The file cannot be used; `str()` says why, without anything that is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """One token. `hash` is `sha256:` and 64 hexadecimal digits; times are Unix time in seconds."""

    name: str
    principal: str
    hash: str
    groups: tuple[str, ...] = ()
    created_at: float = 0.0
    expires_at: float | None = None


def new_token() -> str:
    """A token nobody has: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return "sha256:" + hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def entry_json(entry: TokenEntry) -> dict[str, Any]:
    """An entry as it stands in the file."""
    members: dict[str, Any] = {"name": entry.name, "hash": entry.hash, "created_at": _text(entry.created_at)}
    if entry.principal != entry.name:
        members["principal"] = entry.principal
    if entry.groups:
        members["groups"] = list(entry.groups)
    if entry.expires_at is not None:
        members["expires_at"] = _text(entry.expires_at)
    return members


def read_tokens(path: Path) -> list[TokenEntry]:
    """All entries; raises TokenFileError, also where there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TokenFileError(f"{path}: {error.strerror or type(error).__name__}") from None
    if len(data) > MAX_BYTES:
        raise TokenFileError(f"{path}: larger than {MAX_BYTES} bytes")
    return parse_tokens(str(path), data)


def parse_tokens(source: str, data: bytes) -> list[TokenEntry]:
    """The entries in the text of a file; raises TokenFileError with the number of the entry, from 1 on."""
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
    if not isinstance(value, dict) or not value.keys() <= _MEMBERS:
        raise TokenFileError(f"{place}: has members other than {', '.join(sorted(_MEMBERS))}")
    name, digest, groups = value.get("name"), value.get("hash"), value.get("groups", [])
    principal = value.get("principal", name)
    if not isinstance(name, str) or not isinstance(principal, str):
        raise TokenFileError(f"{place}: has no name")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise TokenFileError(f"{place}: its hash is not sha256: and 64 hexadecimal digits")
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise TokenFileError(f"{place}: groups are a list of texts")
    try:
        check_principal(name)
        check_principal(principal)
        created, expires = _time(value.get("created_at")) or 0.0, _time(value.get("expires_at"))
    except ValueError as error:
        raise TokenFileError(f"{place}: {error}") from None
    return TokenEntry(
        name=name, principal=principal, hash=digest, groups=tuple(groups), created_at=created, expires_at=expires
    )


def _time(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = None
        if when is not None and when.tzinfo is not None:
            return when.timestamp()
    raise ValueError("times are RFC 3339, such as 2030-01-02T03:04:05Z")


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def change_tokens(path: Path, change: Callable[[list[TokenEntry]], Sequence[TokenEntry]]) -> None:
    """Replace the file by what `change` makes of its entries, none where there is no file yet.

    One writer at a time; readers see the old file or the new one, which only its owner can read. Raises
    TokenFileError, and what `change` raises, and then nothing has changed.
    """
    try:
        with _locked(path.parent):
            before = read_tokens(path) if path.exists() else []
            _replace(path, change(before))
    except OSError as error:
        raise TokenFileError(f"{path}: {error.strerror or type(error).__name__}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder's lock: that of the file itself would go with the file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, entries: Sequence[TokenEntry]) -> None:
    text = json.dumps({"tokens": [entry_json(each) for each in entries]}, indent=2, ensure_ascii=False) + "\n"
    path = path.resolve()  # a link stays one
    other = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    before = path.stat() if path.exists() else None
    descriptor = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if before is not None:  # whoever could read it still can
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        other.replace(path)
    except BaseException:
        other.unlink(missing_ok=True)
        raise
