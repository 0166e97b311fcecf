"""Views, probes, pages, CORS and the proxy's prefix over real sockets."""

from __future__ import annotations

import re

import pytest

from tests.e2e.http_gateway import serving

ORIGIN = "https://dash.example"


async def test_the_views_agree_with_each_other() -> None:
    async with serving() as served:
        await served.client.post("/mq/demo/Queues/jobs", content=b"x")
        everything = (await served.client.get("/mq")).json()
        (service,) = everything["services"]
        assert service == (await served.client.get("/mq/demo")).json()
        assert service["link"] == "up"
        assert service["last_error"] is None
        found = {view["mq_uri"]: view for view in service["destinations"]}
        assert found["demo::Queues::jobs"] == (await served.client.get("/mq/demo/Queues/jobs")).json()
        assert found["demo::Queues::jobs"]["published"] == 1
        assert found["demo::Queues::a/b"]["published"] == 0


async def test_probes_and_metrics() -> None:
    async with serving() as served:
        assert (await served.client.get("/health/live")).json() == {"status": "live"}
        ready = await served.client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "services": {"demo": "up"}})
        metrics = await served.client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        for name in ("link_up", "loop_lag_seconds", "build_info", "config_reload_success", "in_flight"):
            assert f"# TYPE mq_gateway_{name} " in metrics.text


@pytest.mark.parametrize("root", ["", "/gateway", "/a/b"])
@pytest.mark.parametrize("stripped", [True, False])
async def test_behind_a_proxy_every_link_works(root: str, stripped: bool) -> None:
    async with serving(root_path=root) as served:
        prefix = "" if stripped else root
        page = (await served.client.get(f"{prefix}/docs")).text
        links = re.findall(r'(?:href|src|data-url)="(/[^"]*)"', page)
        assert len(links) == 4
        for link in links:
            assert link.startswith(f"{root}/")
            assert (await served.client.get(prefix + link.removeprefix(root))).status_code == 200
        answer = await served.client.post(f"{prefix}/mq/demo/Queues/jobs", content=b"x")
        assert answer.status_code == 200
        async with served.stream(f"{prefix}/mq/demo/Queues/jobs/events") as events:
            assert (await events.message()).data == "x"
        described = (await served.client.get(f"{prefix}/openapi.json")).json()
        assert described["servers"] == [{"url": root or "/"}]


@pytest.mark.parametrize("path", ["/", "/docs", "/mq", "/mq/demo", "/health/live", "/metrics", "/openapi.json"])
async def test_head_says_what_get_would(path: str) -> None:
    async with serving() as served:
        head, get = await served.client.head(path), await served.client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]


async def test_a_listed_origin_may_do_everything_a_page_needs() -> None:
    async with serving(allowed_origins=[ORIGIN]) as served:
        preflight = await served.client.options(
            "/mq/demo/Queues/jobs",
            headers={
                "origin": ORIGIN,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type,mq-ttl-ms",
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-headers"] == "authorization, content-type, mq-ttl-ms"
        headers = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
        posted = await served.client.post("/mq/demo/Queues/jobs", content=b"x", headers=headers)
        assert posted.status_code == 200
        assert posted.headers["access-control-allow-origin"] == ORIGIN
        async with served.stream("/mq/demo/Queues/jobs/events", headers=headers) as events:
            assert events.response.headers["access-control-allow-origin"] == ORIGIN
            assert events.response.headers["access-control-allow-credentials"] == "true"
            assert (await events.message()).data == "x"


async def test_a_foreign_page_takes_nothing_from_a_queue() -> None:
    async with serving() as served:
        await served.client.post("/mq/demo/Queues/jobs", content=b"x")
        for headers in ({"origin": ORIGIN}, {"sec-fetch-site": "cross-site"}, {"sec-purpose": "prefetch"}):
            response = await served.client.get("/mq/demo/Queues/jobs/events", headers=headers)
            assert response.status_code == 403
            assert "access-control-allow-origin" not in response.headers
        async with served.stream("/mq/demo/Queues/jobs/events") as events:
            assert (await events.message()).data == "x"


async def test_only_configured_names_lead_here() -> None:
    async with serving(allowed_hosts=["gw.example"]) as served:
        for host, status in (("gw.example:8080", 200), ("localhost", 200), ("rebound.example", 403)):
            response = await served.client.get("/mq", headers={"host": host})
            assert response.status_code == status, host
