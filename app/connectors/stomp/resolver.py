"""Names looked up in threads of our own, for the whole process.

The loop lends two of its few threads to look-ups: two names that hang would hold up those of every other service.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from threading import Lock, Thread
from typing import Any

#: Look-ups (count) at the same time; each has a thread.
MAX_RUNNING = 32

#: As socket.getaddrinfo has them.
Infos = list[tuple[Any, ...]]

#: Name and port, and who waits, in any loop. A name is looked up once at a time: who comes meanwhile joins.
_running: dict[tuple[str, int], set[asyncio.Future[Infos]]] = {}
_lock = Lock()


async def getaddrinfo(name: str, port: int) -> Infos:
    """What socket.getaddrinfo says for a stream; the caller sets the deadline, and owns the list.

    Raises OSError, UnicodeError; TimeoutError where too many look-ups hang.
    """
    answer: asyncio.Future[Infos] = asyncio.get_running_loop().create_future()
    waiting = _join((name, port), answer)
    try:
        return list(await answer)
    finally:
        waiting.discard(answer)


def _join(key: tuple[str, int], answer: asyncio.Future[Infos]) -> set[asyncio.Future[Infos]]:
    with _lock:
        if key not in _running:
            if len(_running) >= MAX_RUNNING:
                raise TimeoutError
            # A daemon: what hangs must not hold up the end of the process.
            try:
                Thread(target=_look_up, args=key, name=f"look-up of {key[0]}", daemon=True).start()
            except RuntimeError as error:  # no thread to be had: this attempt fails, not the link
                raise OSError(str(error)) from None
            _running[key] = set()
        _running[key].add(answer)
        return _running[key]


def _look_up(name: str, port: int) -> None:
    result: Infos | Exception
    try:
        result = list(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 -- for whoever waits
        result = error
    with _lock:
        waiting = list(_running.pop((name, port)))
    for answer in waiting:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            answer.get_loop().call_soon_threadsafe(_tell, answer, result)


def _tell(answer: asyncio.Future[Infos], result: Infos | Exception) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
