"""Subscriptions on a new connection: all together, or one after the other where that ended the last one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from app.connectors.stomp.returns import Returns
from app.connectors.stomp.session import Session
from app.connectors.stomp.subscription import StompSubscription
from app.domain.errors import ConnectionLost, GatewayError, Unavailable
from app.domain.link import LinkFailed, LinkFault

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for restoring one subscription.
DEADLINE = 10.0
#: SUBSCRIBEs (count) on their way at the same time.
TOGETHER = 100


class Restorer:
    """Knows whether the latest restoring ended its connection: nobody was told which subscription it was."""

    def __init__(self) -> None:
        self._careful = False

    async def restore(self, subscriptions: Iterable[StompSubscription], session: Session, returns: Returns) -> None:
        """Restore all; what the broker refuses is cancelled, and only that."""
        careful, self._careful = self._careful, True
        limit = asyncio.Semaphore(1 if careful else TOGETHER)
        async with asyncio.TaskGroup() as group:
            for subscription in subscriptions:
                group.create_task(self._one(subscription, session, returns, limit, careful=careful))
        if session.is_open and not session.blame.unattributed:
            self._careful = False

    async def _one(
        self,
        subscription: StompSubscription,
        session: Session,
        returns: Returns,
        limit: asyncio.Semaphore,
        *,
        careful: bool,
    ) -> None:
        async with limit:
            errors = session.blame.unattributed
            try:
                async with asyncio.timeout(DEADLINE):
                    await subscription.restore(session, returns)
            except (ConnectionLost, Unavailable) as error:
                logger.warning("%s not restored: %s", subscription.destination.uri, error)
            except GatewayError as error:
                subscription.cancelled(str(error))
                return  # it may be a name that this broker cannot have
            except TimeoutError:
                _not_confirmed(subscription, session, careful=careful)
            # RabbitMQ may send a RECEIPT all the same; what else was on the wire may be to blame as well.
            path = subscription.path(session.dialect)
            if careful and session.blame.unattributed > errors and session.blame.lone == path:
                subscription.blamed(f"the broker refused to subscribe again: {session.blame.last_error}")


def _not_confirmed(subscription: StompSubscription, session: Session, *, careful: bool) -> None:
    # Its readers would wait for ever. A new connection may help; if it did not, only this one is given up.
    if careful:
        subscription.is_unanswered = True
        subscription.cancelled("the broker does not confirm this subscription")
    else:
        session.abort(LinkFailed(LinkFault.TIMEOUT, "the broker did not confirm a subscription again"))
