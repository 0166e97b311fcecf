"""`/`, `/docs` and `/openapi.json`: everything from our own origin, also on a network without a way out."""

from __future__ import annotations

import html
import json
from importlib.resources import files

from fastapi import APIRouter, Response

from app.api.context import Context
from app.api.openapi import document

#: Swagger UI's own files that are served, by the name in the URL; nothing else of that package is.
_ASSETS = {
    "swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
}
# Swagger UI sets style attributes and draws its icons from data: URLs; scripts only come from here.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
_HTML = "text/html; charset=utf-8"
_DAY = {"cache-control": "public, max-age=86400"}


def router(context: Context) -> APIRouter:
    """The pages. Their links carry `server.root_path`, since a browser sees the proxy's paths."""
    routes = APIRouter()
    root = context.settings.server.root_path
    start, docs, init = _page("index.html", root), _page("docs.html", root), _page("docs.js", root)
    openapi = json.dumps(document(root), ensure_ascii=False).encode()

    @routes.get("/")
    async def index() -> Response:
        """What this is, and where to go on."""
        return Response(start, media_type=_HTML, headers=_PAGE_HEADERS)

    @routes.get("/docs")
    async def swagger() -> Response:
        """The API, to read and to try."""
        return Response(docs, media_type=_HTML, headers=_PAGE_HEADERS)

    @routes.get("/openapi.json")
    async def description() -> Response:
        """The API as OpenAPI 3.1."""
        return Response(openapi, media_type="application/json", headers={"cache-control": "no-cache"})

    @routes.get("/docs/init.js")
    async def initialiser() -> Response:
        """Starts Swagger UI: a file, since the policy allows no script inside a page."""
        return Response(init, media_type="text/javascript; charset=utf-8", headers={"cache-control": "no-cache"})

    _assets(routes)
    return routes


def _page(name: str, root: str) -> str:
    """A file of ours with `{{root}}` filled in; escaped, although the administrator wrote it."""
    text = files("app.web").joinpath(name).read_text(encoding="utf-8")
    return text.replace("{{root}}", html.escape(root))


def _assets(routes: APIRouter) -> None:
    """Swagger UI's files, read once."""
    folder = files("fastapi_offline").joinpath("static")
    for url, (name, media_type) in _ASSETS.items():
        routes.add_api_route(f"/docs/{url}", _Asset(folder.joinpath(name).read_bytes(), media_type))


class _Asset:
    """A file in memory as an endpoint."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self._content = content
        self._media_type = media_type

    async def __call__(self) -> Response:
        return Response(self._content, headers={"content-type": self._media_type, **_DAY})
