"""Where to begin in a stream: a log in which every message has an offset, counted from 0 and never given twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Why what lies before a delivery is missing: retention removed it, or the stream was made anew.
Missing = Literal["expired", "restart"]
#: The position before the first message there can be.
BEFORE_FIRST = -1
#: Seconds after which a stream whose last messages were asked for, and that delivered none, has none.
EMPTY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class StreamStart:
    """`first` what is kept; `last` the latest few, then what comes; `next` what comes; `after` the offset `value`,
    BEFORE_FIRST included; `time`: about `value`, Unix time in seconds, rather too early than too late."""

    kind: Literal["first", "last", "next", "after", "time"]
    value: int = 0


FIRST = StreamStart("first")
LAST = StreamStart("last")
NEXT = StreamStart("next")


def after(offset: int) -> StreamStart:
    """What follows this offset."""
    return StreamStart("after", offset)
