"""Publishing under a key: what was published once is answered again, and not sent again."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import GatewayError, IdempotencyInProgress, IdempotencyMismatch, Outcome, Overloaded
from app.domain.message import Publication, Published
from app.domain.uri import MqUri
from app.gateway.messengers import Publish

#: Bytes that a key costs: it is kept as a digest.
KEY_BYTES = 400
#: This part of the memory, one in so many, may be keys.
MEMORY_PART = 8
#: Seconds after which a repeat of what is still on its way makes sense.
_RETRY_AFTER = 1.0
_DIGEST = 16
#: Differ from one attempt to the next where a library traces them.
_OF_THE_ATTEMPT = frozenset({"traceparent", "tracestate", "baggage"})


@dataclass(slots=True)
class _Record:
    """Of one key. `confirmed` is None where it is not known what became of the message; `until` by the loop's clock.

    `serial` is that of its first attempt: what is sent again for the sake of this record is the same message.
    """

    fingerprint: bytes
    serial: int
    confirmed: bool | None = None
    persistent: bool = False
    until: float = 0.0


class Once:
    """The keys of this process: each for a window from its answer on; where they are too many the oldest go first."""

    def __init__(self, publish: Publish, limits: LimitSettings, on_grew: Callable[[int], None]) -> None:
        self._publish = publish
        self._window = limits.idempotency_window
        self._keys = min(limits.idempotency_keys, limits.memory // MEMORY_PART // KEY_BYTES)
        self._on_grew = on_grew
        self._secret = secrets.token_bytes(_DIGEST)
        self._under_way: dict[bytes, _Record] = {}
        #: In the order in which they ended.
        self._ended: OrderedDict[bytes, _Record] = OrderedDict()
        self._told = 0
        self._serials = itertools.count()

    @property
    def buffered(self) -> int:
        """Bytes it holds."""
        return KEY_BYTES * (len(self._under_way) + len(self._ended))

    async def publish(
        self, principal: str, destination: Destination, publication: Publication, *, timeout: float, confirm: bool
    ) -> Published:
        """As Gateway.publish; the key is the publication's message id, and holds for this principal and destination.

        After an answer the same one again. What was not sent, was refused, or is unknown, is sent (again). Raises
        IdempotencyMismatch for another message under the key, IdempotencyInProgress, Overloaded.
        """
        place = self._place(principal, destination.uri, publication.message_id)
        fingerprint = _fingerprint(publication)
        known = self._known(place, fingerprint)
        record = _Record(fingerprint, next(self._serials) if known is None else known.serial)
        if known is not None and known.confirmed is not None:
            return Published(
                message_id=publication.message_id,
                mq_uri=destination.uri,
                confirmed=known.confirmed,
                persistent=known.persistent,
            )
        self._begin(place, record)
        ended: _Record | None = record  # whatever else happens, it may have been sent
        # Not the key itself: it may be another principal's too, or used again when the window is over.
        publication = replace(publication, duplicate_id=f"{place.hex()}-{record.serial}")
        try:
            published = await self._publish(destination, publication, timeout=timeout, confirm=confirm)
        except GatewayError as error:
            if error.outcome is not Outcome.UNKNOWN:
                ended = known  # nothing was added to what an attempt before may have done
            raise
        else:
            record.confirmed, record.persistent = published.confirmed, published.persistent
            return published
        finally:
            self._end(place, ended)

    def _place(self, principal: str, uri: MqUri, key: str) -> bytes:
        # Keyed: nobody can make two keys meet.
        text = "\n".join((principal, str(uri), key))
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST, key=self._secret).digest()

    def _known(self, place: bytes, fingerprint: bytes) -> _Record | None:
        """What is known of a key that is not under way; raises where this cannot be the same request again."""
        self._expire()
        under_way = self._under_way.get(place)
        known = under_way or self._ended.get(place)
        if known is not None and known.fingerprint != fingerprint:
            raise IdempotencyMismatch("this Idempotency-Key was used for another message to this destination")
        if under_way is not None:
            raise IdempotencyInProgress("the message with this Idempotency-Key is on its way", retry_after=_RETRY_AFTER)
        return known

    def _begin(self, place: bytes, record: _Record) -> None:
        if len(self._under_way) >= self._keys:
            raise Overloaded(f"{len(self._under_way)} messages with an Idempotency-Key are on their way", retry_after=1)
        self._ended.pop(place, None)
        self._under_way[place] = record
        self._shrink()

    def _end(self, place: bytes, record: _Record | None) -> None:
        del self._under_way[place]
        if record is not None:
            record.until = asyncio.get_running_loop().time() + self._window
            self._ended[place] = record
        self._shrink()

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._ended and next(iter(self._ended.values())).until <= now:
            self._ended.popitem(last=False)
        self._tell()

    def _shrink(self) -> None:
        while self._ended and len(self._ended) + len(self._under_way) > self._keys:
            self._ended.popitem(last=False)
        self._tell()

    def _tell(self) -> None:
        grown, self._told = self.buffered - self._told, self.buffered
        if grown:
            self._on_grew(grown)


def _fingerprint(publication: Publication) -> bytes:
    """The same for the same message, whatever was asked about waiting for it."""
    headers = sorted((name, value) for name, value in publication.headers.items() if name not in _OF_THE_ATTEMPT)
    fields = (
        publication.content_type,
        publication.persistent,
        publication.ttl_ms,
        publication.delay_ms,
        publication.priority,
        publication.correlation_id,
        publication.type,
        publication.group,
        publication.reply_to,
        headers,
    )
    digest = hashlib.blake2b(repr(fields).encode(errors="surrogatepass"), digest_size=_DIGEST)
    digest.update(b"\0")
    digest.update(publication.body)
    return digest.digest()
