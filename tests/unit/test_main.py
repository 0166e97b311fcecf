"""The application and its life."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI

from app.api.context import Context
from app.config.settings import Settings
from app.main import create_app
from app.telemetry.loop_lag import LoopLag

SETTINGS = Settings.model_validate({"services": {"demo": {"mq_type": "Memory", "queues": {"jobs": {}}}}})


def _client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_the_lifespan_owns_the_gateway() -> None:
    app = create_app(SETTINGS)
    context: Context = app.state.context
    assert context.running is None
    async with app.router.lifespan_context(app):
        assert app.state.gateway is context.running
        async with _client(app) as client:
            assert (await client.post("/mq/demo/Queues/jobs", content=b"x")).status_code == 200
    assert context.running is None


async def test_two_applications_share_nothing() -> None:
    one, two = create_app(SETTINGS), create_app(SETTINGS)
    assert one.state.context is not two.state.context
    assert one.state.context.metrics.registry is not two.state.context.metrics.registry


async def test_before_its_life_it_takes_no_work() -> None:
    async with _client(create_app(SETTINGS)) as client:
        response = await client.post("/mq/demo/Queues/jobs", content=b"x")
        assert response.status_code == 503
        assert response.json()["code"] == "draining"
        assert response.json()["outcome"] == "not_sent"
        assert (await client.get("/health/live")).status_code == 200


async def test_the_drain_first_says_so_and_then_means_it() -> None:
    server = SETTINGS.server.model_copy(update={"drain_delay": 0.05})
    app = create_app(SETTINGS.model_copy(update={"server": server}))
    async with app.router.lifespan_context(app), _client(app) as client:
        assert (await client.get("/health/ready")).status_code == 200
        drain = asyncio.create_task(app.state.gateway_drain())
        await asyncio.sleep(0)
        assert (await client.get("/health/ready")).json()["status"] == "draining"
        assert (await client.post("/mq/demo/Queues/jobs", content=b"x")).status_code == 200
        await drain
        response = await client.post("/mq/demo/Queues/jobs", content=b"x")
        assert (response.status_code, response.json()["code"]) == (503, "draining")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/docs/", 404, None),
        ("GET", "/redoc", 404, None),
        ("GET", "/docs/swagger-ui.js", 404, None),
        ("POST", "/health/live", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("HEAD", "/openapi.json", 200, None),
    ],
)
async def test_the_router_speaks_in_our_words(method: str, path: str, status: int, allow: str | None) -> None:
    async with _client(create_app(SETTINGS)) as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert response.headers.get("allow") == allow
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_defect_behind_the_router_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(SETTINGS)

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("a secret")

    async with _client(app) as client:
        response = await client.get("/broken")
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "secret" not in response.text
    assert "a secret" in caplog.text


async def test_the_watch_over_the_loop_ending_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ends(_self: LoopLag) -> None:
        raise LookupError("why")

    monkeypatch.setattr(LoopLag, "run", ends)
    app = create_app(SETTINGS)
    with caplog.at_level(logging.ERROR, "mq_gateway.app"):
        async with app.router.lifespan_context(app), _client(app) as client:
            async with asyncio.timeout(5):
                while app.state.context.failure is None:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0)
            response = await client.get("/health/live")
    assert response.status_code == 503
    assert response.json()["detail"] == "the watch over the event loop ended"
    assert "watch over the event loop" in caplog.text
