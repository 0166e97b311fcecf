"""Several SENDs as one STOMP transaction (STOMP 1.2, sections "BEGIN", "COMMIT", "ABORT"): all of them or none.

RabbitMQ keeps the SENDs back and publishes them at COMMIT, whose RECEIPT comes at once; so each SEND has a receipt too,
which comes with its publisher confirm. ActiveMQ answers each SEND before COMMIT, and a refusal there must keep COMMIT
from being sent: it would commit the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from app.connectors.stomp.confirms import Pending
from app.connectors.stomp.session import Session
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    GatewayError,
    OutcomeUnknown,
)

#: Open at the same time on one connection (count): RabbitMQ 4.4 takes 16.
MAX_OPEN = 8

_ABORTED = "the transaction was not committed"
_LATE = "no confirmation of the transaction in time: it may have been delivered"


@dataclass(frozen=True, slots=True)
class Send:
    """One SEND frame to be; `headers` are its own."""

    body: bytes = field(repr=False)
    content_type: str
    headers: dict[str, str]


class Transaction:
    """One on its way. Until COMMIT is written nothing is delivered, whatever happens."""

    def __init__(self, session: Session, name: str, path: str, *, confirm: bool) -> None:
        self._session = session
        self._name = name
        self._path = path
        self._confirm = confirm
        self._sends: list[Pending] = []
        self._commit: Pending | None = None
        self._open = False

    async def run(self, sends: Sequence[Send], room: Callable[[Session], Awaitable[None]], deadline: float) -> None:
        """BEGIN to the last RECEIPT; `room` returns when another frame may be written, `deadline` is the loop's time.

        Raises Unavailable (nothing was delivered), BrokerRejected, and OutcomeUnknown once COMMIT was written.
        """
        try:
            await self._fill(sends, room)
            if self._confirm and self._session.dialect.answers_before_commit:
                await self._answered(deadline)
            self._write_commit()
            await self._settled(deadline)
        finally:
            self._end()

    async def _fill(self, sends: Sequence[Send], room: Callable[[Session], Awaitable[None]]) -> None:
        await room(self._session)
        self._session.transact("BEGIN", self._name)
        self._open = True
        for number, send in enumerate(sends):
            await room(self._session)
            headers = {**send.headers, "transaction": self._name}
            # All go to one destination: only the first is named as its own, so that an ERROR that quotes it fits one.
            pending = self._session.send(
                self._path, send.body, send.content_type, headers, confirm=self._confirm, named=number == 0
            )
            if pending is not None:
                self._sends.append(pending)

    async def _answered(self, deadline: float) -> None:
        """Every SEND was taken into the transaction; raises BrokerRejected and Unavailable."""
        in_time = await _all_came(self._sends, deadline, when=asyncio.FIRST_EXCEPTION)
        error = next(filter(None, map(_error, self._sends)), None)
        try:
            if isinstance(error, ConnectionLost):
                raise BrokerUnavailable(f"{error}: {_ABORTED}", retry_after=1)
            if error is not None:
                raise error
        finally:
            del error  # it would hold this frame, and the frame the error, until cycles are collected
        if not in_time:
            raise BrokerUnavailable(f"the broker did not answer in time: {_ABORTED}", retry_after=1)

    def _write_commit(self) -> None:
        self._commit = self._session.transact("COMMIT", self._name, confirm=self._confirm)
        self._open = False

    async def _settled(self, deadline: float) -> None:
        if self._commit is None:
            await self._handed_over(deadline)
        elif not await _all_came((*self._sends, self._commit), deadline):
            raise ConfirmTimeout(_LATE)
        else:
            self._judge(self._commit)

    async def _handed_over(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._session.transport.writable()
        except TimeoutError as late:
            late.__traceback__ = None  # it would hold what is behind it until cycles are collected
            raise ConfirmTimeout(_LATE) from None
        if not self._session.is_open:
            raise ConnectionLost("the connection was lost while the transaction was handed over")

    def _judge(self, commit: Pending) -> None:
        """Everybody has answered; raises what is true of all the messages together."""
        failed = [error for error in map(_error, (*self._sends, commit)) if error is not None]
        refused = next((error for error in failed if isinstance(error, BrokerRejected)), None)
        delivered = not self._session.dialect.answers_before_commit and any(not _error(each) for each in self._sends)
        try:
            if refused is not None and delivered:
                raise OutcomeUnknown(f"the broker took a part of the transaction: {refused}")
            if failed:
                raise refused or failed[0]
        finally:
            del failed, refused, commit  # as in `_answered`

    def _end(self) -> None:
        if self._open and self._session.is_open:
            self._session.transact("ABORT", self._name)
        for pending in (*self._sends, *([self._commit] if self._commit is not None else [])):
            self._session.forget(pending)
            _error(pending)  # said to nobody where it came too late
        self._sends.clear()
        self._commit = None


async def _all_came(answers: Sequence[Pending], deadline: float, *, when: str = asyncio.ALL_COMPLETED) -> bool:
    """Whether every one was answered before `deadline`, the loop's time, or `when` (of asyncio.wait)."""
    left = deadline - asyncio.get_running_loop().time()
    await asyncio.wait([each.future for each in answers], timeout=left, return_when=when)
    return all(each.future.done() for each in answers)


def _error(pending: Pending) -> GatewayError | None:
    error = pending.future.exception() if pending.future.done() else None
    return error if isinstance(error, GatewayError) else None
