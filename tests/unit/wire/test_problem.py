"""Errors as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.wire import problem


def _render(detail: str = "why", extra: Mapping[str, Any] | None = None) -> bytes:
    return problem.render(
        code="invalid_name",
        title="Invalid name",
        status=400,
        detail=detail,
        instance="/mq/a/Queues/b",
        request_id="r-1",
        retriable=False,
        extra=extra or {},
    )


def test_has_the_members_of_the_contract() -> None:
    assert json.loads(_render()) == {
        "type": "urn:mq-gateway:problem:invalid_name",
        "title": "Invalid name",
        "status": 400,
        "detail": "why",
        "instance": "/mq/a/Queues/b",
        "code": "invalid_name",
        "retriable": False,
        "request_id": "r-1",
    }


def test_extra_members_come_last_and_replace_nothing() -> None:
    rendered = json.loads(_render(extra={"outcome": "not_sent", "status": 200, "errors": [{"where": "x"}]}))
    assert rendered["status"] == 400
    assert list(rendered)[-2:] == ["outcome", "errors"]


def test_any_text_can_be_rendered() -> None:
    raw = _render("é \ud800 \x00")
    assert raw.isascii()
    assert json.loads(raw)["detail"] == "é \ud800 \x00"
