"""POST /peer/leases: what another replica says of leases that are here. For nobody else.

A question has to be sealed with the secret that replicas share, and without a seal nothing of it is read. Host and
Origin are not looked at: they tell what a page may do, and no page can make a seal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from app.api.answer import JSON, NO_STORE, Answer
from app.api.body import check_encoding, read_body
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.settle import MAX_BODY
from app.domain.errors import Forbidden, MethodNotAllowed
from app.gateway.peer_channel import PATH
from app.wire import peer, peer_seal
from app.wire.peer_seal import Flaw, SealError

#: Bytes of a question: as many leases as a worker may name, and what is said of them.
_MAX_QUESTION = MAX_BODY + 4096
#: Whose memory a question counts as while it is read; no service is called so.
_HOLDER = "/peers"
_REFUSALS: Mapping[Flaw, str] = {
    "peer_seal": "this is for replicas of this gateway, and the seal is not theirs",
    "peer_clock": f"the seal is good, and more than {peer_seal.GOOD_FOR:g} s from now: compare the clocks",
    "peer_body": "the seal is of another body",
}


class PeerLeases:
    """The handler; where nothing is shared with other replicas there is no such resource."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def serves(self, path: str) -> bool:
        """Whether the encoded path is ours."""
        running = self._context.running
        return path == PATH and running is not None and running.answers.key is not None

    async def __call__(self, exchange: Exchange) -> None:
        """Answers under the question's seal; raises Forbidden before the body is read, and GatewayError."""
        answers = self._context.gateway.answers
        key = answers.key or b""  # never asked for without one
        try:
            seal = peer_seal.opened(key, _seal_of(exchange), time.time())
            body = await self._read(exchange)
            seal.check(body)
        except SealError as error:
            exchange.access.reason = error.flaw
            self._context.metrics.auth_failures.labels(error.flaw).inc()
            raise Forbidden(_REFUSALS[error.flaw]) from None
        said = peer.answer_body(answers.hear(peer.parse_question(body)))
        under = (peer_seal.HEADER.encode(), peer_seal.answer_seal(key, seal.text, said).encode())
        await exchange.answer(Answer(status=200, content_type=JSON, body=said, headers=(NO_STORE, under)))

    async def _read(self, exchange: Exchange) -> bytes:
        exchange.access.principal = "peer"
        if exchange.method != "POST":
            raise MethodNotAllowed("questions are posted", allow="POST")
        check_encoding(exchange)
        hold = partial(self._context.gateway.budget.holding, _HOLDER)
        return await read_body(exchange, hold, cap=_MAX_QUESTION, patience=self._context.settings.server.idle_timeout)


def _seal_of(exchange: Exchange) -> str:
    return (exchange.headers.first(peer_seal.HEADER.encode()) or b"").decode("latin-1")
