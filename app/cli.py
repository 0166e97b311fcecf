"""The command `mq-gateway`. Exit codes: 0 done, 1 refused or failed, 2 usage."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.access_commands import AsBy, AsClaims, AsGroups, AsJson, Asked, AsPrincipal, explain
from app.auth import doubts as auth
from app.banner import banner
from app.client.commands import publish, receive, status, subscribe
from app.client.connection import printable
from app.client.telling import REFUSED, notice, one_line_errors
from app.config.effective import effective_yaml
from app.config.errors import ConfigError, Problem
from app.config.loader import Loaded, check_exposure, load_settings
from app.config.settings import Settings
from app.connectors.catalog import UnknownConnectorError, connector_class
from app.gateway.probe import probe
from app.http1.certificate import CertificateError
from app.http1.certificate import load as load_certificate
from app.main import create_app
from app.server import run
from app.telemetry.logs import configure
from app.telemetry.metrics import gateway_version
from app.token_commands import tokens

logger = logging.getLogger("mq_gateway.cli")

cli = typer.Typer(
    name="mq-gateway",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Configs = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML, TOML or DIRAC CFG file; may be repeated, later wins."),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mq-gateway {gateway_version()}")
        raise typer.Exit


@cli.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """HTTP-to-STOMP gateway: publish with POST, subscribe with server-sent events.

    To try it without a broker, run `mq-gateway serve` and follow what it prints.
    """
    del version


@cli.command()
def serve(
    config: Configs = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Address to listen on, instead of server.host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port to listen on, instead of server.port; 0 takes a free one."
        ),
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM.

    Without any configuration it serves the demo: Queue `jobs` and Topic `events` of the service `demo`, in memory.
    """
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    with one_line_errors(ConfigError):
        load = partial(_load, config or [], {"server": given} if given else {})
        settings = _told(_whole(load()))
        configure(settings)
        app = create_app(settings, load, config or [])
        # What is there now stays. A full collection that looks at all of it holds the loop for 60 ms (measured), and is
        # put off for so long that connections which have ended gather.
        gc.collect()
        gc.freeze()
        code = run(app, settings, lambda url: _announce(settings, url))
    raise typer.Exit(code)


@cli.command()
def check(
    service: Annotated[
        str | None, typer.Argument(metavar="SERVICE", help="With --connect: only this service.", show_default=False)
    ] = None,
    config: Configs = None,
    *,
    connect: Annotated[bool, typer.Option("--connect", help="Also connect to the brokers, as `serve` would.")] = False,
    principal: AsPrincipal = None,
    group: AsGroups = None,
    claim: AsClaims = None,
    by: AsBy = None,
    as_json: AsJson = False,
) -> None:
    """Check the configuration and print it as it is in force, secrets masked.

    With --as print instead what somebody may do, and which rule says so. Exits with 1 and says file, line, option and
    reason if something is wrong.
    """
    if service is not None and not connect:
        raise typer.BadParameter("a service is named only with --connect")
    if principal is not None and connect:
        raise typer.BadParameter("--as and --connect exclude each other")
    if principal is None and (group or claim or by or as_json):
        raise typer.BadParameter("--group, --claim, --by and --json go with --as")
    with one_line_errors(ConfigError):
        settings = _told(_whole(_load(config or [], {})))
    if principal is not None:
        explain(settings, Asked(principal, group or [], claim or [], by.value if by else ""), as_json=as_json)
        return
    if service is not None and service not in settings.services:
        raise typer.BadParameter(f"no service {service!r}; there are {', '.join(settings.services)}")
    typer.echo(effective_yaml(settings), nl=False)
    names = [service] if service else list(settings.services)
    if connect and not asyncio.run(_connect(settings, names)):
        raise typer.Exit(REFUSED)


for _command in (publish, subscribe, receive, status):
    cli.command()(_command)
cli.add_typer(tokens)


def _load(files: list[Path], overrides: Mapping[str, object]) -> Loaded:
    """What `serve` works with; raises ConfigError also for what only the upper floors can know."""
    loaded = load_settings(files, overrides=overrides)
    check_exposure(loaded.settings)
    problems = []
    for name, service in loaded.settings.services.items():
        try:
            connector_class(service.mq_type)
        except UnknownConnectorError as error:
            problems.append(Problem(str(error), f"services.{name}.mq_type"))
    if loaded.settings.server.tls.is_on:
        try:
            load_certificate(loaded.settings.server.tls)
        except CertificateError as error:
            problems.append(Problem(error.reason, error.option))
    if problems:
        raise ConfigError(problems)
    return replace(loaded, warnings=(*loaded.warnings, *auth.doubts(loaded.settings)))


def _whole(loaded: Loaded) -> Loaded:
    """What a process can start with; raises ConfigError where files of tokens and keys cannot be used.

    Not at a reload: these files are watched by themselves, and a broken one keeps no policy from being taken over.
    """
    problems = auth.problems(loaded.settings.auth)
    if problems:
        raise ConfigError(problems)
    return loaded


def _told(loaded: Loaded) -> Settings:
    """The settings, after the warnings were told."""
    for warning in loaded.warnings:
        notice(f"warning: {warning}")
    return loaded.settings


def _announce(settings: Settings, url: str) -> None:
    if settings.server.log_format == "console":
        typer.echo(banner(settings, url, gateway_version()))
    else:
        logger.info("listening on %s", url)


async def _connect(settings: Settings, names: list[str]) -> bool:
    good = True
    for name in names:
        async for finding in probe(name, settings.services[name]):
            typer.echo(f"{name}: {'ok' if finding.good else 'FAILED'}: {printable(finding.text)}")
            good = good and finding.good
    return good


def main() -> NoReturn:
    """The entry point of the command."""
    try:
        cli(prog_name="mq-gateway")
    except Exception as error:
        logger.debug("internal error", exc_info=True)
        notice(f"internal error: {type(error).__name__}: {error}")
    sys.exit(REFUSED)
