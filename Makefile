# Everything a developer needs; `make` alone lists it. Only Python >= 3.11 and make must be there.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Tests start real servers and processes, and wait for them: three at a time keep two cores busy.
JOBS   ?= 3
# More arguments: make test ARGS="-k claim -x", make bench ARGS="drain --full"
ARGS   ?=
# Of Postgres, for `make versions`; `make test` takes the machine's own.
VERSIONS ?= 16 18
# What those run: each statement, its plan and the fence. All of it: `make versions VERSIONED=tests`.
VERSIONED ?= $(addprefix tests/test_, $(addsuffix .py, migrate fence claim_plan fair one_each gates ticker audit \
  enqueue rows_fence rows_plan tables_add))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where this is set (some images do), each of the hundreds of processes that tests start would
# compile every module anew: a second of CPU each.
unexport PYTHONDONTWRITEBYTECODE
# One that was killed is not started again: the run would wait for it for ever. Files go out in the
# order that tests/conftest.py puts them in, the longest first.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -q

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format schema lock bench plot chaos versions clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(READY) ## make .venv with everything in requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Duerow needs Python >= 3.11; this is $$($(PYTHON) --version). Next: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments. Next: apt install python3-venv, or make PYTHON=... $(MAKECMDGOALS)"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint requirements.lock uv
	@# uv is quicker; pip knows the mirrors and certificates that pip.conf names.
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock || $(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## charge 1,000 donations with three workers, one killed, one stopped
	$(BIN)/worker demo

test: lint ## lint, types and layers, then every test on a real Postgres
	$(PYTEST) $(ARGS)

lint: $(READY) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

versions: $(READY) ## the tests of what touches SQL, on Postgres 16 and 18
	for version in $(VERSIONS); do \
	  echo "Postgres $$version"; \
	  WORKER_TEST_PG_VERSION=$$version $(PYTEST) -m 'sql and not process' $(VERSIONED) $(ARGS) || exit 1; \
	done

schema: $(READY) ## write sql/schema.sql anew from the migrations
	$(BIN)/python alembic/snapshot.py

lock: $(READY) ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-package duerow \
	  --all-extras --group dev -o requirements.lock pyproject.toml

bench: $(READY) ## measure throughput, and print ratios to a reference from the same run
	$(BIN)/python -m benchmarks $(ARGS)

plot: $(READY) ## draw docs/img/performance.svg from benchmarks/results
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	$(BIN)/python -m benchmarks.plot $(sort $(wildcard benchmarks/results/*.json)) --out docs/img/performance.svg

chaos: $(READY) ## the long fault runs: kills, freezes, stops, restarts
	$(BIN)/python -m tests.chaos

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
