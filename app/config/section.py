"""What every section of the configuration shares: strictness, types with bounds, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

#: The `type` of a validation error for what only a later version implements.
NOT_SUPPORTED = "not_supported"

T = TypeVar("T")


class Section(BaseModel):
    """Base of every section: immutable, unknown options are errors, no input value in an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )


def only(*supported: object) -> AfterValidator:
    """A validator for a setting of which this version implements only these values; others are refused."""

    def check(value: T) -> T:
        if value not in supported:
            raise PydanticCustomError(NOT_SUPPORTED, "not supported in this version")
        return value

    return AfterValidator(check)


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [] if value is None else value


def _unset_is_empty(value: object) -> object:
    return {} if value is None else value


def _readable(kind: str, test: Callable[[Path], bool]) -> AfterValidator:
    def check(path: Path) -> Path:
        if not test(path):
            raise PydanticCustomError("path", "{path} is not a readable {kind}", {"path": str(path), "kind": kind})
        return path

    return AfterValidator(check)


def _is_readable_file(path: Path) -> bool:
    try:
        with path.open("rb"):
            return path.is_file()
    except OSError:
        return False


def _is_readable_folder(path: Path) -> bool:
    try:
        next(path.iterdir(), None)
    except OSError:
        return False
    return True


#: A list, or text with commas (the form an environment variable or a DIRAC CFG file can give).
TextList = Annotated[list[str], BeforeValidator(_split)]
#: A section that may be written with nothing in it (`jobs:` in YAML).
EMPTY_ALLOWED = BeforeValidator(_unset_is_empty)
#: A file that exists and can be read when the configuration is loaded.
ReadableFile = Annotated[Path, _readable("file", _is_readable_file)]
#: A folder that exists and can be listed when the configuration is loaded.
ReadableFolder = Annotated[Path, _readable("folder", _is_readable_folder)]
#: A duration in seconds, zero allowed, at most a day.
Seconds = Annotated[float, Field(ge=0, le=86_400)]
#: A duration in seconds above zero, at most a day.
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
#: A TCP port to connect to.
Port = Annotated[int, Field(ge=1, le=65_535)]
#: A size in bytes, up to 1 TiB.
Size = Annotated[int, Field(ge=1, le=1 << 40)]
