"""Following the events of a destination, across lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import httpx

from app.client.connection import ClientError, Target, refusal, unreachable
from app.client.events import EventReader, EventTooLarge, ServerEvent
from app.domain.uri import MqUri

#: Seconds without a byte after which the connection is taken for dead; a quiet stream has a comment every 15 s.
SILENCE_SECONDS = 120.0
#: Seconds before the next attempt where the gateway named none, and the most it can name.
DEFAULT_PAUSE, LONGEST_PAUSE = 3.0, 60.0

# With a second type the gateway answers in status codes; with the first alone it takes us for a browser.
_ACCEPT = "text/event-stream, application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What to follow from where, at least one destination; None is the gateway's default."""

    uris: Sequence[MqUri]
    format: str | None = None
    start: str | None = None
    last_event_id: str | None = None

    def at(self, target: Target) -> str:
        """Where the stream is: one destination's own, or that of several."""
        return target.resource(self.uris[0], "events") if len(self.uris) == 1 else target.joint_events

    def parameters(self) -> dict[str, str | list[str]]:
        """The request's query."""
        named = list(map(str, self.uris)) if len(self.uris) > 1 else None
        every = (("uri", named), ("format", self.format), ("from", self.start))
        return {key: value for key, value in every if value is not None}


class Follower:
    """Yields events for ever. The first attempt must succeed; a later one is repeated if that may help."""

    def __init__(
        self,
        target: Target,
        following: Following,
        notice: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target = target
        self._following = following
        self._notice = notice
        self._pause = pause
        self._reader = EventReader(following.last_event_id or "")
        self._was_connected = False

    def events(self) -> Generator[ServerEvent]:
        """Every event, also the gateway's own such as `gap`; raises ClientError when there is no going on."""
        with self._target.open(SILENCE_SECONDS) as client:
            while True:
                wait: float | None = None
                try:
                    yield from self._attempt(client)
                    self._notice("the gateway ended the stream; coming back")
                except httpx.TransportError as error:
                    self._go_on_or_raise(unreachable(self._target, error))
                except EventTooLarge as error:
                    raise ClientError(str(error)) from None
                except ClientError as error:
                    self._go_on_or_raise(error)
                    wait = error.retry_after
                self._pause(self._seconds(wait))

    def _go_on_or_raise(self, error: ClientError) -> None:
        if not (self._was_connected and error.retriable):
            raise error
        self._notice(f"{error}; trying again")

    def _seconds(self, wait: float | None) -> float:
        if wait is None:
            retry_ms = self._reader.retry_ms
            wait = DEFAULT_PAUSE if retry_ms is None else retry_ms / 1000
        return min(wait, LONGEST_PAUSE)

    def _attempt(self, client: httpx.Client) -> Iterator[ServerEvent]:
        # What was half read is void; position and pause are kept (WHATWG HTML, section 9.2.3).
        retry_ms, self._reader = self._reader.retry_ms, EventReader(self._reader.last_event_id)
        self._reader.retry_ms = retry_ms
        headers = {"accept": _ACCEPT, "accept-encoding": "identity", "cache-control": "no-store"}
        if self._reader.last_event_id:
            headers["last-event-id"] = self._reader.last_event_id
        url = self._following.at(self._target)
        with client.stream("GET", url, params=self._following.parameters(), headers=headers) as response:
            if response.status_code != 200:
                raise refusal(response)
            self._was_connected = True
            for chunk in response.iter_bytes():
                yield from self._reader.feed(chunk)
