"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sized
from functools import partial
from pathlib import Path

import pytest

from app.auth import watch as module
from app.auth.authority import Authority
from app.auth.watch import Watch, Watched, watching
from app.config.loader import Loaded
from app.config.settings import Settings
from app.telemetry.metrics import Metrics
from tests.e2e.callers import POLICY, Callers

SUCCESS = "mq_gateway_config_reload_success"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def _success(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value(SUCCESS)


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _watch(metrics: Metrics, *watched: Watched) -> AsyncIterator[None]:
    task = asyncio.create_task(Watch(watched, metrics).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _are(found: Sized, number: int) -> bool:
    return len(found) == number


class File:
    """A file whose reading may fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("0")
        self.error: Exception | None = None
        self.reads = 0
        self.seen: list[str] = []

    @property
    def watched(self) -> Watched:
        return Watched(self.path.stem, (self.path,), self._read)

    def _read(self) -> Callable[[], None]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        text = self.path.read_text()
        return lambda: self.seen.append(text)


async def test_what_could_not_be_read_is_tried_again_though_it_is_as_it_was(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = File(tmp_path / "a")
    async with _watch(metrics, file.watched):
        file.error = OSError(24, "Too many open files")
        file.path.write_text("another")
        await _until(lambda: file.reads > 3)
        assert (_success(metrics), file.seen, len(caplog.records)) == (0, [], 1)
        file.error = None
        await _until(lambda: file.seen)
        await _until(lambda: _success(metrics) == 1)
    assert file.seen == ["another"]


async def test_another_complaint_is_another_line(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = File(tmp_path / "a")
    async with _watch(metrics, file.watched):
        for number, error in enumerate((ValueError("one"), RecursionError("two")), 1):
            file.error = error
            if number == 1:
                file.path.write_text("another")
            await _until(partial(_are, caplog.records, number))
    assert [record.getMessage() for record in caplog.records] == ["a stays as it was: one", "a stays as it was: two"]


async def test_one_file_that_is_well_does_not_hide_another_that_is_not(metrics: Metrics, tmp_path: Path) -> None:
    good, bad = File(tmp_path / "good"), File(tmp_path / "bad")
    async with _watch(metrics, good.watched, bad.watched):
        bad.error = ValueError("broken")
        bad.path.write_text("another")
        await _until(lambda: _success(metrics) == 0)
        good.path.write_text("another")
        await _until(lambda: good.seen)
        assert _success(metrics) == 0
        bad.error = None
        await _until(lambda: _success(metrics) == 1)


async def test_a_defect_in_one_does_not_end_the_watch(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = File(tmp_path / "a")
    async with _watch(metrics, file.watched):
        file.error = KeyError("a defect")
        file.path.write_text("another")
        await _until(lambda: caplog.records)
        file.error = None
        file.path.write_text("a third")
        await _until(lambda: file.seen == ["a third"])


async def test_with_nothing_to_watch_it_ends(metrics: Metrics) -> None:
    await Watch([], metrics).run()


async def test_a_file_system_that_hangs_is_complained_about(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.02)
    gone_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> Callable[[], None]:
        asyncio.run_coroutine_threadsafe(gone_on.wait(), loop).result(5)
        return lambda: None

    path = tmp_path / "a"
    async with _watch(metrics, Watched("a", (path,), read)):
        path.write_text("x")
        await _until(lambda: any("does not answer" in record.getMessage() for record in caplog.records))
        gone_on.set()
        await _until(lambda: _success(metrics) == 1)


# What is watched.


def _settings(callers: Callers, **more: object) -> Settings:
    return Settings.model_validate({"auth": callers.auth(**more)})


async def test_the_tokens_are_read_first_and_then_watched(metrics: Metrics, tmp_path: Path) -> None:
    callers = Callers(tmp_path)
    callers.add("alice")
    authority = Authority(_settings(callers), metrics)
    assert authority.tokens is not None
    async with watching(authority, metrics, (), None):
        assert len(authority.tokens) == 1
        callers.add("bob")
        await _until(lambda: len(authority.tokens or ()) == 2)
        callers.path.write_bytes(b"")
        await _until(lambda: _success(metrics) == 0)
        assert len(authority.tokens) == 2
        callers.path.write_bytes(b'{"tokens": []}')
        await _until(lambda: not len(authority.tokens or ()))


async def test_without_a_file_nobody_is_known_until_there_is_one(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(tmp_path)
    callers.path.unlink()
    authority = Authority(_settings(callers), metrics)
    async with watching(authority, metrics, (), None):
        assert "there is no such file" in caplog.text
        Callers(tmp_path).add("alice")
        await _until(lambda: len(authority.tokens or ()) == 1)


async def test_the_policy_is_taken_over_and_nothing_else(metrics: Metrics, tmp_path: Path) -> None:
    callers = Callers(tmp_path)
    config = tmp_path / "gateway.yaml"
    config.write_text("a")
    settings = _settings(callers)
    authority = Authority(settings, metrics)
    written = [settings, _settings(callers, policy=POLICY[:1], hide_forbidden=True)]
    async with watching(authority, metrics, (config,), lambda: Loaded(written[0], ())):
        policy = authority.policy
        del written[0]
        config.write_text("another")
        await _until(lambda: authority.policy is not policy)
        assert not authority.hides


async def test_where_nobody_is_asked_no_policy_is_watched(metrics: Metrics, tmp_path: Path) -> None:
    async with watching(Authority(Settings(), metrics), metrics, (tmp_path,), lambda: Loaded(Settings(), ())):
        pass
