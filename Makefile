# make install | run | test | lint | format | chaos | bench-auth | fuzz | clean      (make help)
# Needs make and Python 3.11 or newer; everything else goes into .venv, nothing into the system's Python.

PYTHON ?= python3
# Processes that run tests at the same time; `auto` is one for each core, 0 none beside the first.
JOBS ?= auto
# Percent of lines and of branches of app that the tests must run.
COVERAGE ?= 95
# Further arguments for pytest, e.g. make test ARGS="-k topics" COVERAGE=0.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
SOURCES := app bench tests scripts

.DEFAULT_GOAL := help
.PHONY: help install run test lint format clean distclean tools

help:
	@echo "make install    make $(VENV) with the command $(BIN)/mq-gateway"
	@echo "make run        install, then serve the demo on http://127.0.0.1:8080"
	@echo "make test       install the brokers where possible, then lint, all tests and coverage"
	@echo "make lint       format, style, types, floors and sizes, known vulnerabilities"
	@echo "make format     write the source as lint wants it"
	@echo "make chaos      load and faults on a real broker, CHAOS_SECONDS=180, with a ledger of every message"
	@echo "make bench-auth what authentication costs, in pairs"
	@echo "make fuzz       search for what breaks the parsers, FUZZ_SECONDS=60 for each"
	@echo "make clean      remove what make made, except $(VENV) (make distclean: that too)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt scripts/venv.sh
	@sh scripts/venv.sh "$(PYTHON)" $(VENV)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@sh scripts/venv.sh "$(PYTHON)" $(VENV) dev
	@touch $@

run: install
	@exec $(BIN)/mq-gateway serve

tools:
	@sh scripts/brokers.sh

test: $(VENV)/.installed-dev tools lint
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest --numprocesses $(JOBS) --dist loadgroup $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
	@$(BIN)/coverage json --quiet -o .coverage.json
	@$(BIN)/python scripts/coverage_gate.py .coverage.json $(COVERAGE)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy --no-error-summary
	@$(BIN)/python scripts/house.py
	@$(BIN)/python scripts/audit.py constraints.txt $(VENV)/.audited

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf build dist var .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) mq_gateway.egg-info

# Targets of other parts live beside them.
-include make/*.mk
