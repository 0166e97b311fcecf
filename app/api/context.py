"""What every handler shares: the configuration, the metrics and, while the application runs, the gateway."""

from __future__ import annotations

from app.auth.authority import Authority
from app.auth.places import Places
from app.config.settings import Settings
from app.domain.errors import Draining
from app.gateway.gateway import Gateway
from app.telemetry.metrics import Metrics


class Context:
    """Made with the application; the lifespan sets `gateway` and takes it away again."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.authority = Authority(settings, metrics)
        self.running: Gateway | None = None
        #: Told to stop: not ready any more, and for `server.drain_delay` still at work.
        self.stopping = False
        #: A failure inside the process that cannot heal; None while all is well.
        self.failure: str | None = None
        #: Open event streams, against `limits.streams`.
        self.streams = 0
        self.streams_of_principals = Places(settings.limits.streams_per_principal, "this principal")
        self.streams_of_addresses = Places(settings.limits.streams_per_address, "this address")

    @property
    def gateway(self) -> Gateway:
        """The gateway; raises Draining before the start and after the end of the lifespan."""
        if self.running is None:
            raise Draining("the gateway is not running")
        return self.running
