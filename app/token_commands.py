"""`mq-gateway token`: makes, lists and revokes API tokens. What is kept of one is its hash."""

from __future__ import annotations

import difflib
import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from app.auth.token_change import change_tokens
from app.auth.token_file import (
    NoTokenFileError,
    TokenEntry,
    TokenFileError,
    check_group,
    entry_json,
    hash_of,
    new_token,
    parse_time,
    read_tokens,
    time_text,
)
from app.client.arguments import parser
from app.client.output import table
from app.client.telling import notice, one_line_errors
from app.config.errors import ConfigError
from app.config.loader import load_settings
from app.domain.principal import check_principal

tokens = typer.Typer(
    name="token",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, list and revoke API tokens.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def expiry(text: str) -> float:
    """`90d`, `12h`, or a time of RFC 3339, as Unix time in the future; raises BadParameter."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found:
        until: float = int(time.time()) + int(found[1]) * _UNITS[found[2]]
    else:
        try:
            until = parse_time(text)
        except ValueError:
            raise typer.BadParameter("must be such as 90d, 12h, or 2030-01-02T03:04:05Z") from None
    if until <= time.time():
        raise typer.BadParameter("must be in the future")
    return until


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", parser=parser(check_principal), help="What the token is called, and its principal."),
]
Configs = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration with auth.tokens_file; may be repeated."),
]
File = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="The file of tokens itself.")]
Principal = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=parser(check_principal),
        help="Whose token it is; for a second token of somebody.  [default: NAME]",
    ),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME", parser=parser(check_group), help="A group; may be repeated."),
]
Expires = Annotated[
    float | None,
    typer.Option(metavar="TIME", parser=expiry, show_default=False, help="Such as 90d, 12h or 2030-01-02T03:04:05Z."),
]
PrintHash = Annotated[
    bool, typer.Option("--print-hash", help="Change no file: print the entry for one that cannot be written here.")
]


@tokens.command("new")
def new(
    name: Name,
    config: Configs = None,
    file: File = None,
    *,
    principal: Principal = None,
    group: Groups = None,
    expires: Expires = None,
    print_hash: PrintHash = False,
) -> None:
    """Make a token and print it, once, as the last line.

    Whoever has it is NAME. A running gateway takes it within 2 seconds.
    """
    token = new_token()
    entry = TokenEntry(
        name=name,
        principal=principal or name,
        hash=hash_of(token),
        groups=tuple(dict.fromkeys(group or ())),
        created_at=int(time.time()),
        expires_at=expires,
    )
    with one_line_errors(ConfigError, TokenFileError):
        if print_hash:
            _without(name, _known(config, file))
            typer.echo(json.dumps(entry_json(entry), ensure_ascii=False))
        else:
            path = _path(config, file)
            change_tokens(path, lambda before: [*_without(name, before), entry])
            notice(f"{name} is in {path}; this is the only time its token is shown")
    typer.echo(token)


def _without(name: str, before: list[TokenEntry]) -> list[TokenEntry]:
    """The entries; raises TokenFileError where the name is taken."""
    found = next((entry for entry in before if entry.name == name), None)
    if found is not None:
        raise TokenFileError(
            f"there is a token called {name!r}; for another of the same: token new OTHER --principal {found.principal}"
        )
    return before


@tokens.command("list")
def list_(
    config: Configs = None,
    file: File = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the tokens: names, groups and times, never what would let anybody in."""
    with one_line_errors(ConfigError, TokenFileError):
        entries = read_tokens(_path(config, file))
    if as_json:
        for entry in entries:
            members = {**entry_json(entry), "principal": entry.principal, "expired": entry.has_expired(time.time())}
            members.pop("hash")
            typer.echo(json.dumps(members, ensure_ascii=False))
        return
    if not entries:
        notice("there are no tokens")
        return
    typer.echo(table([("NAME", "PRINCIPAL", "GROUPS", "CREATED", "EXPIRES"), *map(_row, entries)]))


def _row(entry: TokenEntry) -> tuple[str, ...]:
    expires = "never" if entry.expires_at is None else time_text(entry.expires_at)
    mark = " (expired)" if entry.has_expired(time.time()) else ""
    created = "-" if entry.created_at is None else time_text(entry.created_at)
    return entry.name, entry.principal, ", ".join(entry.groups) or "-", created, expires + mark


@tokens.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is called.")],
    config: Configs = None,
    file: File = None,
) -> None:
    """Take a token away. A running gateway refuses it within 2 seconds, and its streams end within 5."""

    def without(before: list[TokenEntry]) -> list[TokenEntry]:
        left = [entry for entry in before if entry.name != name]
        if len(left) == len(before):
            near = difflib.get_close_matches(name, [entry.name for entry in before], n=1)
            raise TokenFileError(f"no token is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return left

    with one_line_errors(ConfigError, TokenFileError):
        path = _path(config, file)
        read_tokens(path)  # where there is none, none is made
        change_tokens(path, without)
    typer.echo(f"{name} is revoked")


def _path(config: list[Path] | None, file: Path | None) -> Path:
    """The file of tokens; raises ConfigError, TokenFileError, and BadParameter where none is named."""
    if file is not None:
        if config:
            raise typer.BadParameter("--config and --file exclude each other")
        return file
    path = load_settings(config or []).settings.auth.tokens_file
    if path is not None:
        return path
    if not config:
        raise typer.BadParameter("--config FILE names a configuration with auth.tokens_file, or --file the file itself")
    raise TokenFileError("auth.tokens_file is not set in the configuration")


def _known(config: list[Path] | None, file: Path | None) -> list[TokenEntry]:
    """The tokens there are, where it is said which file the new one is for."""
    if not config and file is None:
        return []
    try:
        return read_tokens(_path(config, file))
    except NoTokenFileError:
        return []
