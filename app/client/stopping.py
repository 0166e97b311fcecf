"""Ending on Ctrl-C and SIGTERM: what waits ends at once, what is under way is finished first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The end is wanted, and nothing is under way."""


class Stop:
    """A context in which the two signals are ours. `asked`: the end is wanted.

    A second signal is a KeyboardInterrupt, wherever the program is. One that was ignored when the program began, as a
    shell has it for what runs in its background, stays so. For the main thread only.
    """

    def __init__(self) -> None:
        self.asked = False
        self._idle = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Where nothing is under way: raises Stopped there, also for a signal that came before."""
        self._idle = True  # before the look at `asked`: a signal between the two is noticed twice, and not never
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._idle = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._idle:
            raise Stopped
