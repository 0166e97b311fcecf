"""The header fields of a request. Values are bytes on the wire; text is UTF-8 and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from app.domain.errors import FieldError, InvalidHeader


def bad_header(name: str, rule: str) -> InvalidHeader:
    """The 400 for a header: names it and says what it may be."""
    return InvalidHeader(f"header {name}: {rule}", errors=[FieldError(name, rule)])


class RequestHeaders:
    """Look-up by name in lower case. A header that may stand once and stands twice is an error, not a choice.

    Two values for one name are read differently by every proxy on the way (RFC 9110 section 5.3): taking the
    first or the last would let a client say one thing to a proxy and another to us.
    """

    __slots__ = ("_last", "pairs")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self.pairs = list(pairs)
        self._last = dict(self.pairs)

    def get(self, name: bytes) -> bytes | None:
        """The value, or None; raises InvalidHeader where it stands more than once."""
        value = self._last.get(name)
        if value is None:
            return None
        if len(self._last) != len(self.pairs) and sum(key == name for key, _ in self.pairs) > 1:
            raise bad_header(name.decode("latin-1"), "is given more than once")
        return value.strip(b" \t")

    def first(self, name: bytes) -> bytes | None:
        """Any one value, without a check: for what is only looked at, or refused where it does not fit."""
        return self._last.get(name)

    def text(self, name: bytes) -> str | None:
        """The value as text, or None; raises InvalidHeader for bytes that are not UTF-8."""
        value = self.get(name)
        return None if value is None else as_text(name, value)

    def forget(self, *, but: bytes) -> None:
        """Let go of all headers except this one."""
        self.pairs = [pair for pair in self.pairs if pair[0] == but]
        self._last = dict(self.pairs)

    def __contains__(self, name: bytes) -> bool:
        return name in self._last


def as_text(name: bytes, value: bytes) -> str:
    """A value as text; raises InvalidHeader for bytes that are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise bad_header(name.decode("latin-1"), "valid UTF-8") from None
