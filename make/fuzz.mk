# Coverage-guided fuzzing of the parsers, FUZZ_SECONDS for each; not part of `make test`, which replays the corpus.
# What breaks an invariant is left in .fuzz/: make it pass and add it to tests/fuzz/corpus.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= frames cfg

.PHONY: fuzz

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@sh scripts/venv.sh "$(PYTHON)" $(VENV) fuzz
	@touch $@

fuzz: $(VENV)/.installed-fuzz
	@set -e; for target in $(FUZZ_TARGETS); do \
	    mkdir -p .fuzz/$$target; \
	    $(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -timeout=10 \
	        -print_final_stats=1 -artifact_prefix=.fuzz/$$target- .fuzz/$$target tests/fuzz/corpus/$$target; \
	done
