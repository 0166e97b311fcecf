"""Pages: all from our own origin."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from fastapi import Response
from fastapi.routing import APIRoute

from app.api.context import Context
from app.api.routes import docs
from app.config.settings import Settings
from app.telemetry.metrics import Metrics

PATHS = ("/", "/docs", "/docs/init.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json")


async def _page(path: str, root: str = "/gw") -> Response:
    settings = Settings.model_validate({"server": {"root_path": root}})
    routes = docs.router(Context(settings, Metrics())).routes
    (route,) = [route for route in routes if getattr(route, "path", "") == path]
    endpoint = cast("Callable[[], Awaitable[Response]]", cast("APIRoute", route).endpoint)
    return await endpoint()


@pytest.mark.parametrize("path", PATHS)
async def test_there_is_something_at_every_path(path: str) -> None:
    response = await _page(path)
    assert response.status_code == 200
    assert len(response.body) > 100
    assert "cache-control" in response.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_links_to_our_own_origin_only(path: str) -> None:
    response = await _page(path)
    page = bytes(response.body).decode()
    links = re.findall(r'(?:href|src|data-url)="([^"]*)"', page)
    assert len(links) > 2
    assert all(link.startswith("/gw/") or link == "data:," for link in links)
    assert "{{" not in page
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


async def test_a_prefix_cannot_break_out_of_the_page() -> None:
    page = bytes((await _page("/", '/"><script>')).body).decode()
    assert "<script>" not in page


async def test_the_document_is_json() -> None:
    described = json.loads(bytes((await _page("/openapi.json")).body))
    assert described["servers"] == [{"url": "/gw"}]


async def test_swagger_ui_can_render_the_document() -> None:
    # Versions before 5 refuse OpenAPI 3.1.
    assert b"3.1" in bytes((await _page("/docs/swagger-ui-bundle.js")).body)
