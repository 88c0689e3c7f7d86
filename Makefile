# make demo       a real 4-bit LoRA fine-tune, interrupted, resumed and scored; within 5 minutes on 2 free CPU cores after downloads
# make test       the test suite, in two processes; PYTEST_ARGS="-n 0" takes one, and "-n 4" four
# make test-slow  what it leaves out: combinations of parameters of which it tries every kind once, and what make demo does too
# make faults     the fault matrix with its full counts, about half an hour on 2 idle cores; writes the table of docs/reliability.md
# make lint       style, types, layering and the documented options
# make docs       write the generated pages and .env.example again
# make bench      the benchmarks: start-up, saving, pushing, and training beside TRL (in an environment of its own, which it downloads)
# make clean      remove what make and the tools made, the virtual environment included; runs and the model cache stay
#
# Only python3 (3.11 or newer, with venv and pip) and make are assumed. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PACKAGES := cli trainers checkpointing naming configs examples
PIP_FLAGS := --disable-pip-version-check --no-input -qq

# The dozens of processes that tests and benchmarks start would compile all sources each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow faults lint docs bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)

# The stamp keeps the install from being repeated; it is older than these two files when they change.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pitstop needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); the first time this downloads PyTorch, which takes some minutes"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[test,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/pitstop fetch-demo
	@$(BIN)/python examples/medical_ner/demo.py

# Without the demo model the tests that train it are skipped, and pytest says so. A file's tests share what they trained, so
# that it stays in one process; tests/support/sampling.py lets the long files come first, and the short ones fill the end.
test: $(STAMP)
	@$(BIN)/pitstop fetch-demo || echo "going on without the demo model" >&2
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-slow: $(STAMP)
	@$(BIN)/pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Without the privilege to mount a tmpfs that row is not run, and the table says so.
faults: $(STAMP)
	@$(BIN)/pytest -m faults --full-faults --faults-report=docs/reliability.md $(PYTEST_ARGS)

lint: $(STAMP) .types/pitstop
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest tests/cli/test_documentation.py

docs: $(STAMP)
	@$(BIN)/python docs/generate.py

bench: $(STAMP)
	@$(BIN)/pitstop fetch-demo
	@$(BIN)/python benchmarks/run.py

# mypy cannot read setuptools' package-dir mapping: links give it the namespace that the code imports.
.types/pitstop:
	@mkdir -p $@
	@for package in $(PACKAGES); do ln -sfn ../../$$package $@/$$package; done

clean:
	rm -rf $(VENV) .types build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(PACKAGES) tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
