"""Targets for a coverage-guided fuzzer: what must hold for the parsers, whatever the bytes.

A target is `check(data)`, which raises where something does not hold. `make fuzz` searches for such bytes, `make test`
replays the corpus, which holds nasty seeds and what was found before.
"""
