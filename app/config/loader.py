"""From files, environment and command line to settings.

Later wins: defaults, the files in order, the environment, the command line. Maps merge, lists are replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from app.config.dirac_cfg import CfgSection, parse_cfg
from app.config.dirac_services import GridPlaces, map_services
from app.config.document import Document, anchored, merged, text
from app.config.environment import read_environment
from app.config.errors import ConfigError, Place, Problem
from app.config.explain import explain
from app.config.settings import MEMORY, Settings
from app.config.toml_file import parse_toml
from app.config.yaml_file import parse_yaml, read_text

__all__ = ["ConfigError", "Loaded", "Place", "Problem", "check_exposure", "load_settings"]

_PARSERS = {".yaml": parse_yaml, ".yml": parse_yaml, ".toml": parse_toml}
_CFG = ".cfg"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and sentences about what an operator may not have meant."""

    settings: Settings
    warnings: tuple[str, ...]


def load_settings(
    files: Sequence[Path],
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    grid: GridPlaces | None = None,
) -> Loaded:
    """Read, merge and validate; raises ConfigError with everything that is wrong.

    `overrides` has the shape of the settings (`{"server": {"port": 9000}}`); `environ` defaults to the
    process's own.
    """
    environ = os.environ if environ is None else environ
    document = merged(_sources(files, environ, overrides or {}, grid or GridPlaces()))
    if not document.values.get("services"):
        names = ", ".join(map(str, files))
        raise ConfigError([Problem("no services are configured", "services", Place(names) if names else None)])
    try:
        settings = Settings.model_validate(document.values, context={"environ": environ})
    except ValidationError as error:
        raise ConfigError(explain(error, document)) from None
    return Loaded(settings, (*document.warnings, *_doubts(settings)))


def check_exposure(settings: Settings) -> None:
    """Refuse to serve everybody by accident; raises ConfigError that names both ways out."""
    if not settings.auth.is_open or settings.server.is_loopback or settings.auth.allow_anonymous:
        return
    reason = (
        f"{settings.server.host!r} can be reached by other machines, and with auth.mode none whoever reaches the "
        "port may publish and read everything. Either listen on a loopback address (server.host: 127.0.0.1, or "
        "--host 127.0.0.1), have callers recognised (auth.mode: token), or accept it with auth.allow_anonymous: true "
        "(MQ_GATEWAY_AUTH__ALLOW_ANONYMOUS=true)"
    )
    raise ConfigError([Problem(reason, "server.host")])


def _sources(
    files: Sequence[Path], environ: Mapping[str, str], overrides: Mapping[str, object], grid: GridPlaces
) -> Iterator[Document]:
    environment = read_environment(environ)
    if not files and not environment.values.get("services"):
        yield _demo()
    yield from _read(files, environ, grid)
    yield environment
    values = text(overrides)
    yield Document(values if isinstance(values, dict) else {}, {(name,): Place("command line") for name in overrides})


def _demo() -> Document:
    demo = {"demo": {"mq_type": MEMORY, "queues": {"jobs": {}}, "topics": {"events": {}}}}
    return Document({"services": text(demo)}, {(): Place("demo configuration")})


def _read(files: Sequence[Path], environ: Mapping[str, str], grid: GridPlaces) -> Iterator[Document]:
    """The files as documents; CFG files are one, because a DIRAC option may depend on one in another
    file."""
    positions = [index for index, path in enumerate(files) if path.suffix.lower() == _CFG]
    if positions and positions[-1] - positions[0] >= len(positions):
        raise ConfigError([Problem("CFG files must follow each other", place=Place(str(files[positions[-1]])))])
    for index, path in enumerate(files):
        suffix = path.suffix.lower()
        if suffix == _CFG:
            if index == positions[0]:
                yield map_services(_merged_cfg(files[index : positions[-1] + 1]), environ, grid)
        elif suffix in _PARSERS:
            document = _PARSERS[suffix](str(path), read_text(path))
            document.values = anchored(document.values, path.parent)
            yield document
        else:
            known = ", ".join((*_PARSERS, _CFG))
            raise ConfigError([Problem(f"the name must end in one of {known}", place=Place(str(path)))])


def _merged_cfg(files: Sequence[Path]) -> CfgSection:
    result = CfgSection(Place(", ".join(map(str, files))))
    for path in files:
        result.merge(parse_cfg(str(path), read_text(path)))
    return result


def _doubts(settings: Settings) -> Iterator[str]:
    for name, service in settings.services.items():
        if service.tls and not service.tls.verify:
            yield f"services.{name}.tls.verify: false: whoever answers at that address gets the password"
        if service.password and not service.tls and service.addresses() and not service.user:
            yield f"services.{name}.user: a password without a user is not sent"
