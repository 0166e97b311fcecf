"""Answers as values."""

from __future__ import annotations

from app.api.answer import Answer, json_answer


def test_json_is_utf8_and_not_stored() -> None:
    assert json_answer({"name": "été"}, 207) == Answer(
        status=207,
        content_type=b"application/json",
        body='{"name":"été"}'.encode(),
        headers=((b"cache-control", b"no-store"),),
    )
