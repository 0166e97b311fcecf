"""A worker: takes one message after the other, has it handled, and answers for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from app.client.connection import ClientError, printable
from app.client.handling import Outcome
from app.client.keeping import kept
from app.client.pausing import Pauses
from app.client.stopping import Stop, Stopped
from app.client.taking import Taken, Taker

#: Seconds that one request waits for a message at most (HTTP contract, section 3).
LONGEST_WAIT = 20.0
#: Seconds that a wait of a request lasts at least, whatever ended it: a gateway that goes down answers at once.
SHORTEST_WAIT = 1.0
#: Seconds in which an ack or a nack is repeated while the gateway is away.
SETTLE_SECONDS = 30.0

_LOST = {
    "expired": "its lease was over; it comes again",
    "unknown": "the gateway has forgotten its lease; it comes again",
    "elsewhere": "the replica that had it does not answer; it may come again",
}


class Receiver:
    """One message at a time, so that whoever ends it leaves none behind. `number` None: for ever."""

    def __init__(
        self,
        taker: Taker,
        handle: Callable[[Taken], Outcome],
        notice: Callable[[str], None],
        *,
        number: int | None = 1,
        wait_seconds: float = LONGEST_WAIT,
        delay_seconds: float | None = None,
    ) -> None:
        self._taker = taker
        self._handle = handle
        self._notice = notice
        self._number = number
        self._wait = wait_seconds
        self._delay = delay_seconds
        self._good = True

    def run(self, stop: Stop) -> bool:
        """Whether as many as were wanted are done, and the gateway knows it.

        Raises ClientError where there is no going on, KeyboardInterrupt at a second signal; the message that was under
        way is given back then.
        """
        left = self._number
        try:
            while left is None or left > 0:
                taken = self._follow(stop) if left is None else self._within(stop)
                if taken is None:
                    self._notice(f"no message within {self._wait:g} s")
                    return False
                self._work(taken, stop)
                left = None if left is None else left - 1
        except Stopped:
            return self._good and self._number is None
        return self._good

    def _follow(self, stop: Stop) -> Taken:
        """The next message, whatever becomes of the gateway meanwhile; that it is away is told once."""
        pauses: Pauses | None = None
        while True:
            try:
                taken = self._poll(LONGEST_WAIT, stop)
            except ClientError as error:
                if not error.retriable:
                    raise
                if pauses is None:
                    self._notice(f"{error}; trying again")
                    pauses = Pauses()
                with stop.idle():
                    time.sleep(pauses.next(error.retry_after))
                continue
            if taken is not None:
                return taken
            pauses = None

    def _within(self, stop: Stop) -> Taken | None:
        """The next message, or None where none came in time."""
        until = time.monotonic() + self._wait
        while True:
            left = max(0.0, until - time.monotonic())
            taken = self._poll(min(left, LONGEST_WAIT), stop)
            if taken is not None or time.monotonic() >= until:
                return taken

    def _poll(self, wait: float, stop: Stop) -> Taken | None:
        began = time.monotonic()
        taken = self._taker.receive(wait, stop)
        rest = min(wait, SHORTEST_WAIT) - (time.monotonic() - began)
        if taken is None and rest > 0:
            with stop.idle():
                time.sleep(rest)
        return taken

    def _work(self, taken: Taken, stop: Stop) -> None:
        if stop.asked:  # it came while the end was asked for: nothing of it was begun
            self._give_back(taken)
            raise Stopped
        try:
            with kept(self._taker, taken, self._notice):
                outcome = self._handle(taken)
            self._settle(taken, outcome)
        except OSError as error:
            self._give_back(taken)
            raise ClientError(f"{_name(taken)}: {error}") from None
        except BaseException:  # also an answer that is refused for good
            self._give_back(taken)
            raise

    def _give_back(self, taken: Taken) -> None:
        """For others to have at once; where that fails it comes again when its lease is over."""
        with suppress(ClientError):
            self._taker.answer("nack", taken.lease, delay=0)

    def _settle(self, taken: Taken, outcome: Outcome) -> None:
        if outcome is Outcome.DONE:
            said = self._say("ack", taken)
        elif outcome is Outcome.NEVER:
            said = self._say("nack", taken, requeue=False)
        else:
            said = self._say("nack", taken, **({} if self._delay is None else {"delay": self._delay}))
        self._good = self._good and said == "done" and outcome is Outcome.DONE
        if said != "done":
            self._notice(f"{_name(taken)}: {_LOST.get(said, printable(said))}")

    def _say(self, verb: str, taken: Taken, **members: object) -> str:
        """The result, or why there is none: said again while the gateway or another replica is away."""
        until = time.monotonic() + SETTLE_SECONDS
        pauses = Pauses()
        while True:
            asked: float | None = None
            try:
                said = self._taker.answer(verb, taken.lease, **members)
            except ClientError as error:
                if not error.retriable:
                    raise
                said, asked = f"{error}; it may come again", error.retry_after
            else:
                if said != "elsewhere":
                    return said
            pause = pauses.next(asked)
            if time.monotonic() + pause > until:
                return said
            time.sleep(pause)


def _name(taken: Taken) -> str:
    return printable(f"message {taken.message_id}")
