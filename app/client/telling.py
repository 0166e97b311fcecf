"""What a command says on standard error, and how it ends when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

#: Exit code of what was refused or has failed.
REFUSED = 1


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """What is the operator's or the gateway's to mend ends as lines on standard error and exit code 1."""
    try:
        yield
    except kinds as error:
        for line in str(error).splitlines():
            notice(line)
        raise typer.Exit(REFUSED) from None


def notice(text: str) -> None:
    """One line on standard error."""
    typer.echo(f"mq-gateway: {text}", err=True)
