# The compose file on a real engine; not part of `make test`, because most build machines have none.
.PHONY: test-compose

test-compose:
	@$(PYTHON) scripts/test_compose.py
