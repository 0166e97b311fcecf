"""The reference page made from the settings."""

from __future__ import annotations

from pathlib import Path

from app.config import reference


def test_the_page_in_the_tree_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / reference.TARGET
    assert page.read_text(encoding="utf-8") == reference.render(), "run `python -m app.config.reference`"


def test_has_type_default_and_meaning() -> None:
    page = reference.render()
    assert "| `port` | whole number, >= 0, <= 65535 | `8080` | TCP port; 0 takes a free one. |" in page
    assert "| `password` | secret text | unset | Password at the broker." in page
    assert "| `replay` | `ring`, `stream` | `ring` |" in page
    assert "| `linger` | number, >= 0, <= 86400 | `30` |" in page
    assert "| `keep` | true or false | `false` |" in page
    assert "\n## `services.<name>.topics.<name>`\n" in page


def test_writes_where_it_is_told(tmp_path: Path) -> None:
    target = tmp_path / "docs" / "page.md"
    assert reference.main([str(target)]) == 0
    assert target.read_text(encoding="utf-8") == reference.render()
