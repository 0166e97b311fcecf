"""What every section shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from app.config.section import EMPTY_ALLOWED, ReadableFile, ReadableFolder, Section, TextList, only


class _Inner(Section):
    size: int = 3


class _Sample(Section):
    words: TextList = Field(default_factory=list)
    mode: Annotated[str, only("a")] = "a"
    inner: Annotated[_Inner, EMPTY_ALLOWED] = Field(default_factory=_Inner)
    number: float = 1.0
    file: ReadableFile | None = None
    folder: ReadableFolder | None = None


@pytest.mark.parametrize(("given", "words"), [("a, b,,c ", ["a", "b", "c"]), (["a,b"], ["a,b"]), (None, []), ("", [])])
def test_a_list_may_be_text_with_commas(given: object, words: list[str]) -> None:
    assert _Sample.model_validate({"words": given}).words == words


def test_an_empty_section_has_its_defaults() -> None:
    assert _Sample.model_validate({"inner": None}).inner.size == 3


def test_values_of_later_versions_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="not supported in this version") as caught:
        _Sample(mode="b")
    assert caught.value.errors()[0]["loc"] == ("mode",)


@pytest.mark.parametrize("wrong", [{"unknown": 1}, {"number": "inf"}, {"number": "nan"}])
def test_unknown_options_and_infinite_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _Sample.model_validate(wrong)


def test_is_immutable_and_errors_do_not_show_values() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _Sample().mode = "a"  # type: ignore[misc]
    with pytest.raises(ValidationError) as caught:
        _Sample.model_validate({"secrt": "hunter2", "number": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_files_and_folders_must_exist_as_such(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.touch()
    assert _Sample(file=file, folder=tmp_path).file == file
    for wrong in ({"file": tmp_path}, {"file": tmp_path / "none"}, {"folder": file}, {"folder": tmp_path / "none"}):
        with pytest.raises(ValidationError, match="is not a readable"):
            _Sample.model_validate(wrong)
