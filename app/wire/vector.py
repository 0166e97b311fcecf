"""The event id of a stream of several Topics: the position in each of them.

`v.` and then, parted by commas, for every Topic six characters that stand for its mqURI, and its position. So an id
says what it says whatever the order of the URIs, and whichever came or went since.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256

from app.domain.uri import MqUri

#: In place of a position: there is a gap here that was not told yet. No Topic takes it for a position.
UNTOLD = "-"
#: Characters of an id of 32 Topics, each at the largest position there can be, with some to spare.
MAX_LENGTH = 1000

_PREFIX = "v."
_TAG_LENGTH = 6
_PART = re.compile(r"([0-9A-Za-z_-]{6})([0-9A-Za-z_.-]{0,24})")
_ID = b"id: "
_NEXT_ID = b"\n\nid: "
_ENVELOPE = b'data: {"id":"'


def tag(uri: MqUri) -> str:
    """What stands for an mqURI: 36 bits of its SHA-256."""
    return urlsafe_b64encode(sha256(str(uri).encode()).digest()).decode()[:_TAG_LENGTH]


def positions(text: str, uris: Sequence[MqUri]) -> list[str]:
    """The position in each of these Topics, empty where none of its events was seen yet.

    UNTOLD for one that the id does not know, and for all where it is none of ours: a full match or nothing.
    """
    known = _parsed(text)
    return [known.get(tag(uri), UNTOLD) for uri in uris]


def _parsed(text: str) -> dict[str, str]:
    if len(text) > MAX_LENGTH or not text.startswith(_PREFIX):
        return {}
    parts = text.removeprefix(_PREFIX).split(",")
    found = [(match[1], match[2]) for part in parts if (match := _PART.fullmatch(part))]
    known = dict(found)
    return known if len(known) == len(parts) else {}


class Vector:
    """Where one stream stands, by the number of each Topic."""

    def __init__(self, uris: Sequence[MqUri]) -> None:
        self._tags = [tag(uri).encode() for uri in uris]
        self._parts = list(self._tags)

    def __bytes__(self) -> bytes:
        """The event id."""
        return _PREFIX.encode() + b",".join(self._parts)

    def move(self, number: int, position: bytes) -> None:
        """This Topic's events were seen up to here."""
        self._parts[number] = self._tags[number] + position

    def stamp(self, number: int, events: bytes, *, envelopes: bool) -> bytes:
        """Whole events of one Topic, each with the position in all of them for its own, and moved on behind the last.

        What has no id keeps none. An envelope says its id once more, and is told by `envelopes`: a body could look like
        one. The events are encoded once for everybody; here they are only copied, once.
        """
        head, tail = self._around(number)
        pieces: list[bytes] = []
        begin, position = _ID, b""
        # No event has an empty line within; behind one, nothing but its id begins like that.
        parts = events.split(_NEXT_ID)
        if events.startswith(_ID):
            parts[0] = parts[0][len(_ID) :]
        else:
            pieces, begin = [parts.pop(0)], _NEXT_ID
        for part in parts:
            position, line_end, rest = part.partition(b"\n")
            pieces += (begin, head, position, tail, line_end)
            if envelopes and rest.startswith(_ENVELOPE):
                pieces += (_ENVELOPE, head, position, tail)
                rest = rest[len(_ENVELOPE) + len(position) :]
            pieces.append(rest)
            begin = _NEXT_ID
        if parts:
            self.move(number, position)
        return b"".join(pieces)

    def _around(self, number: int) -> tuple[bytes, bytes]:
        """What stands before and behind the position in one Topic."""
        before = _PREFIX.encode() + b"".join(part + b"," for part in self._parts[:number])
        return before + self._tags[number], b"".join(b"," + part for part in self._parts[number + 1 :])
