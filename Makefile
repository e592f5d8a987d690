# Everything a developer needs; `make` alone lists it. Only Python >= 3.11 and make must be there.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Tests start real servers and processes: two at a time suit a small machine.
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint format schema lock bench chaos versions clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(READY) ## make .venv with everything in requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Duerow needs Python >= 3.11; this is $$($(PYTHON) --version). Next: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## charge 1,000 donations with three workers, one killed, one stopped
	$(BIN)/worker demo

test: check ## lint, types, layers, and every test on a real Postgres
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -q

check: lint ## lint, types and layers, without the tests
lint: $(READY) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

versions: $(READY) ## the tests that touch SQL, on Postgres 15, 16 and 18
	for version in 15 16 18; do \
	  WORKER_TEST_PG_VERSION=$$version $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -q -m 'not process' $(SQL_TESTS) || exit 1; \
	done

schema: $(READY) ## write sql/schema.sql anew from the migrations
	$(BIN)/python alembic/snapshot.py

lock: $(READY) ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-package duerow \
	  --all-extras --group dev -o requirements.lock pyproject.toml

bench: $(READY) ## measure throughput, and print ratios to a reference from the same run
	$(BIN)/python -m benchmarks

chaos: $(READY) ## the long fault runs: kills, freezes, stops, restarts
	$(BIN)/python -m tests.chaos

clean: ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
