# make bench-auth: what authentication and a policy cost, measured in pairs; see bench/auth_cost.py.

.PHONY: bench-auth
bench-auth: $(VENV)/.installed-dev
	$(BIN)/python bench/auth_cost.py $(ARGS)
