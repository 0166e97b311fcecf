# The compose files on a real engine; not part of `make test`, because most build machines have none.
.PHONY: test-compose test-cluster

test-compose:
	@$(PYTHON) scripts/test_compose.py

test-cluster:
	@$(PYTHON) scripts/test_cluster.py
