"""The command line, against a gateway that really runs."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from app import cli as command
from app.client.following import Follower
from app.client.receiving import Receiver
from app.client.stopping import Stop
from app.config.settings import Settings
from app.telemetry.metrics import gateway_version

#: Seconds any step may take.
PATIENCE = 60.0


class Running:
    """A gateway as a process, with the demo configuration on a free port; `banner` is what it printed."""

    def __init__(self) -> None:
        arguments = [sys.executable, "-m", "app", "serve", "--port", "0"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.banner = ""

    def wait(self) -> str:
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        while "API:" not in self.banner:
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.banner}"
            self.banner += line
        watchdog.cancel()
        found = re.search(r"listens on (\S+)", self.banner)
        assert found is not None
        return found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    gateway = Running()
    try:
        gateway.wait()
        yield gateway
    finally:
        code = gateway.stop()
    assert code == 0


@pytest.fixture
def url(running: Running) -> str:
    found = re.search(r"listens on (\S+)", running.banner)
    assert found is not None
    return found[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MQ_GATEWAY_URL", "MQ_GATEWAY_TOKEN", "MQ_GATEWAY_SERVICES"):
        monkeypatch.delenv(name, raising=False)


def _run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(command.cli, list(arguments), input=stdin)


def _yaml(tmp_path: Path, content: str) -> str:
    file = tmp_path / "gateway.yaml"
    file.write_text(content, encoding="utf-8")
    return str(file)


@contextmanager
def _listening(url: str, query: str = "") -> Iterator[Iterator[str]]:
    """The lines of the stream of the demo's Topic from its first id on: from here on everything is kept."""
    with httpx.stream("GET", f"{url}/mq/demo/Topics/events/events{query}", timeout=PATIENCE) as response:
        lines = response.iter_lines()
        _next(lines, "id: ")
        yield lines


def _next(lines: Iterator[str], beginning: str) -> str:
    return next(line.removeprefix(beginning) for line in lines if line.startswith(beginning))


class TestRoot:
    """Help and version."""

    def test_version(self) -> None:
        result = _run("--version")
        assert (result.exit_code, result.stdout) == (0, f"mq-gateway {gateway_version()}\n")

    @pytest.mark.parametrize("name", ["serve", "check", "publish", "subscribe", "receive", "status"])
    def test_every_command_has_help(self, name: str) -> None:
        result = _run(name, "--help")
        assert result.exit_code == 0
        assert "Options:" in result.stdout
        assert name in _run("--help").stdout

    def test_without_a_command_there_is_help_and_a_usage_error(self) -> None:
        assert _run().exit_code == 2
        assert _run("recieve").exit_code == 2


class TestServe:
    """Running the gateway."""

    @pytest.mark.skipif(shutil.which("curl") is None, reason="the printed lines are for curl")
    def test_what_it_prints_works_as_printed(self, running: Running) -> None:
        listen, publish = (shlex.split(line) for line in running.banner.splitlines() if line.startswith("  curl "))
        with subprocess.Popen([*listen, "-s"], stdout=subprocess.PIPE, text=True) as listening:
            assert listening.stdout is not None
            try:
                _next(listening.stdout, "id: ")
                published = subprocess.run([*publish, "-s"], capture_output=True, check=True, timeout=PATIENCE)
                assert json.loads(published.stdout)["confirmed"] is True
                assert _next(listening.stdout, "data: ") == '{"hello": "world"}\n'
            finally:
                listening.kill()

    def test_options_win_over_files_and_the_exit_code_is_the_servers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served: list[Settings] = []

        def run(app: FastAPI, settings: Settings, on_started: Callable[[str], None]) -> int:
            assert app.title == "mq-gateway"
            served.append(settings)
            on_started("http://127.0.0.1:5")
            return 7

        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(command, "configure", lambda settings: None)
        file = _yaml(tmp_path, "server: {port: 4, host: 127.0.0.2}\nservices: {a: {mq_type: Memory}}\n")
        result = _run("serve", "--config", file, "--port", "5")
        assert result.exit_code == 7
        assert (served[0].server.host, served[0].server.port) == ("127.0.0.2", 5)
        assert "listens on http://127.0.0.1:5" in result.stdout
        assert _run("serve", "--config", file, "--host", "::1").exit_code == 7
        assert served[1].server.host == "::1"
        assert _run("serve").exit_code == 7
        assert list(served[2].services) == ["demo"]

    def test_with_logs_in_json_it_prints_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def run(_app: FastAPI, _settings: Settings, on_started: Callable[[str], None]) -> int:
            on_started("http://x")
            return 0

        monkeypatch.setenv("MQ_GATEWAY_SERVER__LOG_FORMAT", "json")
        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(command, "configure", lambda settings: None)
        with caplog.at_level(logging.INFO, "mq_gateway.cli"):
            assert _run("serve").stdout == ""
        assert caplog.messages == ["listening on http://x"]

    def test_an_open_door_is_refused(self) -> None:
        result = _run("serve", "--host", "0.0.0.0")
        assert result.exit_code == 1
        assert "auth.allow_anonymous: true" in result.stderr
        assert "--host 127.0.0.1" in result.stderr

    def test_a_bad_configuration_is_refused_in_one_line_each(self, tmp_path: Path) -> None:
        file = _yaml(tmp_path, "services: {a: {hots: [b], port: x}}\n")
        result = _run("serve", "--config", file)
        assert result.exit_code == 1
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert lines == [
            f"mq-gateway: {file}:1: services.a.port: must be a whole number, not 'x'",
            f"mq-gateway: {file}:1: services.a.hots: unknown option; did you mean hosts?",
        ]

    def test_a_broken_file_of_tokens_is_refused_at_the_start_and_hinders_no_reload(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served: list[FastAPI] = []

        def run(app: FastAPI, _settings: Settings, _on_started: Callable[[str], None]) -> int:
            served.append(app)
            return 0

        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(command, "configure", lambda settings: None)
        content = "services: {a: {mq_type: Memory}}\nauth: {mode: token, tokens_file: tokens.json}\n"
        file, tokens = _yaml(tmp_path, content), tmp_path / "tokens.json"
        result = _run("serve", "--config", file)
        assert (result.exit_code, len(served)) == (0, 1)
        assert (
            f"warning: auth.tokens_file: there is no {tokens}: nobody has a token; `mq-gateway token new`"
            in result.stderr
        )
        tokens.write_text("{")
        result = _run("serve", "--config", file)
        assert (result.exit_code, len(served)) == (1, 1)
        assert f"mq-gateway: auth.tokens_file: {tokens}: not valid JSON" in result.stderr
        assert served[0].state.load().settings.auth.mode == ("token",)


class TestCheck:
    """Checking the configuration."""

    def test_prints_what_is_in_force_without_secrets(self, tmp_path: Path) -> None:
        file = _yaml(tmp_path, "services: {a: {host: h, user: u, password: hunter2, tls: {verify: false}}}\n")
        result = _run("check", "--config", file)
        assert result.exit_code == 0
        assert "port: 61613" in result.stdout
        assert "hunter2" not in result.output
        assert "warning: services.a.tls.verify" in result.stderr

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("server: {port: 1}\n", "no services are configured"),
            ("services: {a: {mq_type: Kafka}}\n", "services.a.mq_type: mq_type 'Kafka' is not known"),
            ("server: {host: '::'}\nservices: {a: {mq_type: Memory}}\n", "auth.allow_anonymous"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, content: str, reason: str) -> None:
        result = _run("check", "--config", _yaml(tmp_path, content))
        assert result.exit_code == 1
        assert reason in result.stderr
        assert result.stdout == ""

    def test_connects_where_asked(self, tmp_path: Path) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            content = f"services: {{a: {{mq_type: Memory}}, b: {{host: 127.0.0.1, port: {port}}}}}\n"
            file = _yaml(tmp_path, content)
            every = _run("check", "--config", file, "--connect")
            one = _run("check", "--config", file, "--connect", "a")
        assert every.exit_code == 1
        assert "\na: ok: Memory: up" in every.stdout
        assert "\nb: FAILED: " in every.stdout
        assert one.exit_code == 0
        assert "b: " not in one.stdout.rpartition("a: ok")[2]

    def test_a_service_needs_the_option_and_must_exist(self, tmp_path: Path) -> None:
        assert _run("check", "demo").exit_code == 2
        result = _run("check", "--connect", "dmeo")
        assert result.exit_code == 2
        assert "there are demo" in result.stderr


class TestPublish:
    """Publishing through the running gateway."""

    def test_prints_the_id_of_what_was_confirmed(self, url: str) -> None:
        result = _run("publish", "demo::Queues::jobs", "hello", "--url", url)
        assert result.exit_code == 0
        assert re.fullmatch(r"confirmed [0-9a-f-]{36}\n", result.stdout)

    def test_every_option_arrives(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQ_GATEWAY_URL", url)
        options = "--content-type application/json --header JobID=7 --priority 3 --correlation-id c --no-persistent"
        with _listening(url, "?format=envelope") as lines:
            result = _run("publish", "demo::Topics::events", "-", *options.split(), "--timeout", "9", stdin=b'{"a": 1}')
            assert result.exit_code == 0, result.stderr
            envelope = json.loads(_next(lines, "data: "))
        assert (envelope["body"], envelope["content_type"]) == ({"a": 1}, "application/json")
        assert envelope["headers"]["JobID"] == "7"
        assert result.stdout == f"confirmed {envelope['message_id']}\n"

    def test_handing_over_is_not_called_confirmed(self, url: str) -> None:
        result = _run("publish", "demo::Queues::jobs", "hello", "--confirm", "none", "--url", url)
        assert result.stdout.startswith("handed over ")
        as_json = _run("publish", "demo::Queues::jobs", "hello", "--json", "--persistent", "--url", url)
        assert json.loads(as_json.stdout)["persistent"] is True

    def test_every_line_of_a_file_is_a_message(self, url: str, tmp_path: Path) -> None:
        lines = tmp_path / "jobs.ndjson"
        lines.write_bytes(b'{"JobID": 1}\n\n{"JobID": 2}\n')
        result = _run("publish", "demo::Queues::jobs", "--batch", str(lines), "--url", url)
        assert (result.exit_code, result.stdout) == (0, "2 confirmed\n")
        result = _run("publish", "demo::Queues::jobs", "--batch", "-", "--atomic", "--json", "--url", url, stdin=b"1\n")
        assert json.loads(result.stdout)["outcomes"] == {"confirmed": 1}
        result = _run("publish", "demo::Queues::jobs", "--batch", "-", "--url", url, stdin=b"")
        assert (result.exit_code, result.stdout) == (0, "no messages\n")

    def test_one_failure_among_lines_is_a_failure(self, url: str) -> None:
        result = _run("publish", "demo::Queues::jobs", "--batch", "-", "--url", url, stdin=b"1\nno json\n")
        assert (result.exit_code, result.stdout) == (1, "1 confirmed, 1 not_sent\n")
        assert result.stderr.startswith("mq-gateway: message 1: not_sent: invalid_json: ")

    def test_a_refusal_is_one_line(self, url: str) -> None:
        result = _run("publish", "demo::Queues::none", "hello", "--url", url)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("mq-gateway: 404 unknown_destination: ")
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("jobs", "x"),
            ("demo::Queues::a*", "x"),
            ("demo::Queues::jobs", "x", "--priority", "10"),
            ("demo::Queues::jobs", "x", "--header", "a"),
            ("demo::Queues::jobs", "x", "--header", "a=1", "--header", "A=2"),
            ("demo::Queues::jobs", "x", "--url", "localhost:8080"),
            ("demo::Queues::jobs", "x", "--timeout", "0"),
            ("demo::Queues::jobs", "x", "--confirm", "perhaps"),
            ("demo::Queues::jobs", "x", "--batch", "-"),
            ("demo::Queues::jobs", "x", "--atomic"),
            ("demo::Queues::jobs", "--batch", "/nowhere/at/all"),
        ],
    )
    def test_usage_errors(self, arguments: tuple[str, ...]) -> None:
        assert _run("publish", *arguments).exit_code == 2

    def test_a_bad_token_is_not_shown(self) -> None:
        result = _run("publish", "demo::Queues::jobs", "x", "--token", "hunter2 x")
        assert result.exit_code == 2
        assert "hunter2" not in result.output
        assert "hunter2" not in _run("publish", "--help").output


class TestSubscribe:
    """Following the running gateway."""

    def test_takes_from_a_queue_and_ends_after_count(self, url: str) -> None:
        assert _run("subscribe", "demo::Queues::jobs", "--url", url, "--from", "sideways").exit_code == 2
        for body in ("one", "two"):
            _run("publish", "demo::Queues::jobs", body, "--url", url)
        result = _run("subscribe", "demo::Queues::jobs", "--url", url, "--count", "2")
        assert result.exit_code == 0, result.stderr
        assert len(result.stdout.splitlines()) == 2

    def test_a_gap_is_told_on_standard_error(self, url: str) -> None:
        options = ("--count", "1", "--json", "--last-event-id", "foreign.1")
        with _listening(url):
            _run("publish", "demo::Topics::events", "kept", "--url", url)
            result = _run("subscribe", "demo::Topics::events", "--url", url, *options)
        assert result.exit_code == 0
        assert "gap in demo::Topics::events (restart)" in result.stderr
        assert set(json.loads(result.stdout)) == {"event", "id", "data"}

    def test_several_come_as_envelopes(self, url: str) -> None:
        with _listening(url):
            _run("publish", "demo::Topics::events", "topic", "--url", url)
            _run("publish", "demo::Queues::jobs", "queue", "--url", url)
            uris = ("demo::Queues::jobs", "demo::Topics::events")
            result = _run("subscribe", *uris, "--url", url, "--count", "2", "--from", "earliest")
        assert result.exit_code == 0, result.stderr
        shown = [json.loads(line) for line in result.stdout.splitlines()]
        assert {value["mq_uri"] for value in shown} <= set(uris)

    def test_a_refusal_is_one_line(self, url: str) -> None:
        result = _run("subscribe", "demo::Topics::none", "--url", url)
        assert result.exit_code == 1
        assert result.stderr.startswith("mq-gateway: 404 unknown_destination: ")

    @pytest.mark.parametrize(("options", "code"), [((), 0), (("--count", "1"), 1)])
    def test_ctrl_c_is_the_end_unless_a_number_was_wanted(
        self, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int
    ) -> None:
        def interrupted(_follower: Follower) -> Iterator[Any]:
            yield from ()
            raise KeyboardInterrupt

        monkeypatch.setattr(Follower, "events", interrupted)
        result = _run("subscribe", "demo::Topics::events", *options)
        assert (result.exit_code, result.output) == (code, "")


class TestReceive:
    """Taking from the running gateway."""

    def test_takes_one_after_the_other(self, url: str) -> None:
        while _run("receive", "demo::Queues::jobs", "--url", url, "--wait", "0").exit_code == 0:
            pass
        for body in ("one", "two", "three"):
            _run("publish", "demo::Queues::jobs", body, "--url", url)
        assert _run("receive", "demo::Queues::jobs", "--url", url).stdout == "one"
        assert json.loads(_run("receive", "demo::Queues::jobs", "--url", url, "--json").stdout)["body"] == "two"
        result = _run("receive", "demo::Queues::jobs", "--url", url, "--exec", "exit 65")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith(": exit code 65; refused for good\n")

    def test_a_refusal_is_one_line(self, url: str) -> None:
        result = _run("receive", "demo::Queues::none", "--url", url)
        assert result.exit_code == 1
        assert result.stderr.startswith("mq-gateway: 404 unknown_destination: ")

    def test_a_second_ctrl_c_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_receiver: Receiver, _stop: Stop) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(Receiver, "run", interrupted)
        result = _run("receive", "demo::Queues::jobs", "--follow")
        assert (result.exit_code, result.output) == (1, "")

    @pytest.mark.parametrize(
        "options",
        [
            ("--max", "2", "--follow"),
            ("--max", "-1"),
            ("--wait", "3", "--follow"),
            ("--wait", "3", "--max", "0"),
            ("--delay", "3"),
            ("--lease", "0.5"),
            ("--lease", "nan"),
            ("--wait", "inf"),
            ("--delay", "inf", "--exec", "true"),
        ],
    )
    def test_usage_errors(self, options: tuple[str, ...]) -> None:
        assert _run("receive", "demo::Queues::jobs", *options).exit_code == 2


class TestStatus:
    """Looking at the running gateway."""

    def test_for_people_and_for_programs(self, url: str) -> None:
        shown = _run("status", "--url", url)
        assert shown.exit_code == 0, shown.stderr
        head, columns, row = shown.stdout.splitlines()
        assert head.startswith(f"mq-gateway {gateway_version()}, instance ")
        assert columns.split() == ["SERVICE", "LINK", "CONNECTIONS", "BROKER", "ADDRESS", "SINCE"]
        assert row.split()[:2] == ["demo", "up"]
        assert json.loads(_run("status", "--url", url, "--json").stdout)["services"][0]["service"] == "demo"

    def test_one_service_with_its_destinations(self, url: str) -> None:
        shown = _run("status", "demo", "--url", url)
        assert shown.exit_code == 0, shown.stderr
        words = {line.split()[0] for line in shown.stdout.splitlines() if line}
        assert {"demo", "demo::Queues::jobs", "demo::Topics::events"} < words
        assert json.loads(_run("status", "demo", "--url", url, "--json").stdout)["service"] == "demo"

    def test_a_refusal_is_one_line(self, url: str) -> None:
        result = _run("status", "a/b::c", "--url", url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("mq-gateway: 404 ")
        assert result.stderr.count("\n") == 1
        result = _run("status", "--url", "http://127.0.0.1:1")
        assert result.exit_code == 1
        assert "is `mq-gateway serve` running there?" in result.stderr


class TestMain:
    """The entry point of the process."""

    def test_exit_codes_are_the_commands(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for arguments, code in ((["--version"], 0), (["nothing"], 2), (["check", "--config", "none.yaml"], 1)):
            monkeypatch.setattr(sys, "argv", ["mq-gateway", *arguments])
            with pytest.raises(SystemExit) as caught:
                command.main()
            assert caught.value.code == code
        assert "none.yaml: cannot be read" in capsys.readouterr().err

    def test_a_defect_is_one_line_and_no_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_arguments: Any, **_options: Any) -> None:
            raise RuntimeError("oh")

        monkeypatch.setattr(command, "load_settings", broken)
        monkeypatch.setattr(sys, "argv", ["mq-gateway", "check"])
        with pytest.raises(SystemExit) as caught:
            command.main()
        assert caught.value.code == 1
        assert capsys.readouterr().err == "mq-gateway: internal error: RuntimeError: oh\n"
