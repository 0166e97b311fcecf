# A soak with faults on real brokers, with a ledger of every message (docs/reliability.md); not part of `make test`.
#   CHAOS_SECONDS (180)  CHAOS_BROKER (rabbitmq or docker)  CHAOS_SEED  CHAOS_REPORT (JSON)  CHAOS_PLOT (SVG)
.PHONY: chaos

chaos: $(VENV)/.installed-dev tools
	@$(BIN)/python -m tests.chaos
