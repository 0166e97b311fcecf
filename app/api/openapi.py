"""The description of the API: written by hand in `openapi.yaml`, completed from the tables it would else repeat."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from app.api.problems import TABLE
from app.telemetry.metrics import gateway_version

# The one in C takes a hundredth of a second instead of a quarter; it is not in every build of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def document(root: str) -> dict[str, Any]:
    """OpenAPI 3.1; `root` is the path prefix under which clients see the gateway."""
    text = files("app.web").joinpath("openapi.yaml").read_text(encoding="utf-8")
    description: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe one, and our own file
    description["info"]["version"] = gateway_version()
    description["servers"] = [{"url": root or "/"}]
    problem = description["components"]["schemas"]["Problem"]["properties"]
    problem["code"]["enum"] = [code.value for code in TABLE]
    return description
