"""Changing the file of tokens: one writer at a time, and never half a file."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.auth.token_file import NoTokenFileError, TokenEntry, TokenFileError, file_text, read_tokens

Change = Callable[[list[TokenEntry]], Sequence[TokenEntry]]

#: Seconds to wait for another writer, and between two tries: there is no waiting for a lock with an end.
LOCK_SECONDS = 10.0
_TRY_SECONDS = 0.02
# What a file that is not to be written says: of a read-only file system, of a file mounted by itself, of rights.
_READ_ONLY = frozenset({errno.EROFS, errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM})
_HINT = "; for a file that cannot be written here, `mq-gateway token new --print-hash` prints what to put into it"
_ACL = "system.posix_acl_access"


def change_tokens(path: Path, change: Change, *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Replace the file by what `change` makes of its entries, none where there is no file yet.

    Readers see the old file or the new one, also after the machine has lost its power. A new one only its owner can
    read; another keeps its owner and its rights, and a link stays one. Raises TokenFileError, and what `change`
    raises, and then nothing has changed.
    """
    try:
        # Whoever comes by a link, or without, is to meet the same lock.
        target = path.resolve()
        with _folder(target.parent, time.monotonic() + lock_seconds) as folder:
            _replace(folder, target, file_text(change(_before(target))))
    except RuntimeError:  # Path.resolve, of links that go round in a circle
        raise TokenFileError(f"{path}: {os.strerror(errno.ELOOP)}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TokenFileError(f"{path}: {reason}{_HINT if error.errno in _READ_ONLY else ''}") from None


def _before(path: Path) -> list[TokenEntry]:
    try:
        return read_tokens(path)
    except NoTokenFileError:
        return []


@contextmanager
def _folder(path: Path, end: float) -> Iterator[int]:
    """The folder, locked: the lock of the file itself would go with the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise TokenFileError(f"there is no folder {path}: make it first, for its owner alone (mode 0700)") from None
    try:
        while not _locked(descriptor):
            if time.monotonic() >= end:
                raise TokenFileError(f"{path}: another process holds the lock of this folder; nothing was changed")
            time.sleep(_TRY_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(folder: int, path: Path, data: bytes) -> None:
    other = f".mq-gateway-tokens.{secrets.token_hex(8)}"
    descriptor = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask or the folder make of a new file
            with suppress(FileNotFoundError):
                _take_after(file.fileno(), path)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(other, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(other, dir_fd=folder)
        raise
    # It is done, also where a file system has no such thing for folders.
    with suppress(OSError):
        os.fsync(folder)


def _take_after(descriptor: int, path: Path) -> None:
    """Owner and rights of the file at `path`: whoever could read it still can, and nobody else.

    The owner first: until then its rights would be another group's.
    """
    old, new = path.stat(), os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o777)
    if hasattr(os, "getxattr"):
        try:
            rights = os.getxattr(path, _ACL)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
        else:
            # Without its list the mask would stand for the rights of the group, which may have none.
            os.setxattr(descriptor, _ACL, rights)
