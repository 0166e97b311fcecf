"""What is wrong with several destinations, told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import Code, FieldError, GatewayError, Unavailable

#: What decides where the errors differ: first what the caller has to change, so that nobody tries again in vain.
_FIRST = (
    *(Code.INVALID_NAME, Code.INVALID_PARAMETER, Code.UNAUTHENTICATED, Code.FORBIDDEN),
    *(
        Code.UNKNOWN_SERVICE,
        Code.UNKNOWN_DESTINATION,
        Code.NOT_SUPPORTED_BY_BROKER,
        Code.BROKER_REJECTED,
        Code.INTERNAL,
    ),
)


class Faults:
    """Gathers errors of what a parameter names, each with its number there and the mqURI as it was given."""

    def __init__(self, parameter: str) -> None:
        self._parameter = parameter
        self._found: list[tuple[int, str, GatewayError]] = []

    @contextmanager
    def of(self, number: int, text: str) -> Iterator[None]:
        """A GatewayError in the block is kept for later."""
        try:
            yield
        except GatewayError as error:
            self.add(number, text, error)

    def add(self, number: int, text: str, error: GatewayError) -> None:
        """One more."""
        self._found.append((number, text, error))

    def check(self) -> None:
        """Raise all of them as one, of the kind that matters most; nothing where there are none."""
        if self._found:
            raise self._as_one()

    def _as_one(self) -> GatewayError:
        found = sorted(self._found, key=lambda each: each[0])
        errors = [error for _, _, error in found]
        first = min(errors, key=_rank)
        if isinstance(first, Unavailable) and len({str(error) for error in errors}) == 1 < len(errors):
            return first  # of no destination, but of all: that nothing is to be had now
        told = [FieldError(f"{self._parameter}[{number}]", _message(text, error)) for number, text, error in found]
        detail = told[errors.index(first)].message
        if len(errors) > 1:
            detail = f"{len(errors)} destinations cannot be had; one of them: {detail}"
        waits = [error.retry_after for error in errors if error.retry_after is not None]
        return type(first)(detail, errors=told, retry_after=max(waits, default=None))


def _rank(error: GatewayError) -> int:
    return _FIRST.index(error.code) if error.code in _FIRST else len(_FIRST)


def _message(text: str, error: GatewayError) -> str:
    return str(error) if text in str(error) else f"{text}: {error}"
