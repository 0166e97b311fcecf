"""Search for bytes that break a parser: `python -m tests.fuzz.run frames|cfg [options of libFuzzer] [corpus …]`.

Needs the dependency group `fuzz`; `make fuzz` installs it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["app", "stomp.utils"]):
    from tests.fuzz import cfg, frames

TARGETS = {"frames": frames.check, "cfg": cfg.check}


def main(arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process, with a code other than 0 where it found something."""
    program, name, *rest = arguments
    atheris.Setup([program, *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
