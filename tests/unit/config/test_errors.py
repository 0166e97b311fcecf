"""What is wrong with a configuration."""

from __future__ import annotations

from app.config.errors import ConfigError, Place, Problem


def test_says_where_which_and_why_on_a_line_each() -> None:
    error = ConfigError(
        [
            Problem("must be a number", "server.port", Place("a.yaml", 3)),
            Problem("cannot be read", place=Place("b.toml")),
            Problem("no services are configured"),
        ]
    )
    assert str(error).splitlines() == [
        "a.yaml:3: server.port: must be a number",
        "b.toml: cannot be read",
        "no services are configured",
    ]
    assert len(error.problems) == 3
