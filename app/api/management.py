"""What the management port serves: health and metrics for those who can reach it, and nothing else.

Who that is decides the address it listens on: nobody has to say who they are, and no Host or Origin is looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.context import Context
from app.api.exchange import Exchange
from app.api.routes.health import is_live, is_ready
from app.api.routes.metrics import exposition
from app.domain.errors import GatewayError, Internal, MethodNotAllowed, NotFound
from app.telemetry import access

logger = logging.getLogger("mq_gateway.api")

_RESOURCES: Mapping[str, Callable[[Context], Response]] = {
    "/health/live": is_live,
    "/health/ready": is_ready,
    "/metrics": exposition,
}


class Management:
    """ASGI, for HTTP only."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        exchange = Exchange(scope, receive, send)
        try:
            response = self._response(scope)
            await exchange.start(response.status_code, response.raw_headers)
            await exchange.send(bytes(response.body), more=False)
        except GatewayError as error:
            await exchange.refuse(error)
        except Exception:
            logger.exception("request %s failed", exchange.request_id.decode())
            await exchange.refuse(Internal("the gateway failed; its log says why under the request id"))
        finally:
            access.log(exchange.access)

    def _response(self, scope: Scope) -> Response:
        resource = _RESOURCES.get(scope["path"])
        if resource is None:
            raise NotFound("there is nothing at this path of the management port")
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodNotAllowed("this resource is only for reading", allow="GET, HEAD")
        return resource(self._context)
