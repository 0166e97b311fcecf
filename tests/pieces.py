"""A stream arrives in pieces that nobody chose: where to cut one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import strategies as st

#: Places for `cut`, whatever the length of the stream.
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """The stream in pieces, none empty; a place beyond its end is taken modulo its length."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[start:end] for start, end in pairwise(edges))


def single_bytes(data: bytes) -> Iterator[bytes]:
    """The finest cut of all."""
    return (data[at : at + 1] for at in range(len(data)))
