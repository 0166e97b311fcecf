"""Certificates are renewed while the gateway runs: their files are looked at, and a good new pair is taken over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from app.config.server_tls import ServerTlsSettings
from app.http1.certificate import Certificate, CertificateError, load

logger = logging.getLogger("mq_gateway.tls")

#: Seconds between two looks. What has changed is read at the second look that finds it as the first did, so that
#: files are not read while they are written: a change counts after at most two of them.
LOOK_SECONDS = 0.5

#: Device, inode, times of change and size, of both files: links that are turned over show as well as new content.
Stamp = tuple[tuple[int, ...], ...]


class CertificateWatch:
    """Looks in a thread of its own, a daemon: a file system that hangs holds up neither the loop nor the end."""

    def __init__(self, settings: ServerTlsSettings, take: Callable[[Certificate], None]) -> None:
        """`take` is called on the loop. Make it before the files are read the first time: what changes then shows."""
        self._settings = settings
        self._take = take
        self._paths = tuple(path for path in (settings.cert_file, settings.key_file) if path is not None)
        self._seen = self._read = self._stamp()
        self._said = ""
        self._stop = threading.Event()

    def start(self) -> None:
        """Looks until `stop`, on behalf of the running loop."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, args=(loop,), name="certificate-watch", daemon=True).start()

    def stop(self) -> None:
        """The thread ends at its next look."""
        self._stop.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                found = self._look()
            except CertificateError as error:
                self._complain(str(error))
            except Exception:
                logger.exception("the files of the certificate could not be looked at")
            else:
                if found is not None:
                    with contextlib.suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(self._take, found)

    def _look(self) -> Certificate | None:
        """The new pair where there is one; raises CertificateError as long as the files are none."""
        stamp = self._stamp()
        before, self._seen = self._seen, stamp
        if stamp == self._read or stamp != before:
            return None
        # Tried again at each look until it can be read: it may have been for want of a descriptor.
        found = load(self._settings)
        self._read, self._said = stamp, ""
        logger.info("took over the certificate in %s", self._settings.cert_file)
        return found

    def _complain(self, words: str) -> None:
        """Once, not at each look."""
        if words != self._said:
            self._said = words
            logger.error("%s; the certificate stays as it was", words)

    def _stamp(self) -> Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
