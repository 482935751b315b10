# Everything a person or CI does with this checkout. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help install demo ui test check bench torture fmt lock clean

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

FOREBAY_HOME := $(or $(FOREBAY_HOME),.forebay)
DAGSTER_HOME := $(or $(DAGSTER_HOME),$(FOREBAY_HOME)/dagster)
UI_PORT      ?= 3000

# The first Python on the PATH that Forebay supports and that can make a virtual environment. It is run, not only
# looked up: a version manager's stand-in may be there for a Python that is not. `make PYTHON=… install` overrides it.
FIT = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(firstword $(foreach python,python3 python3.12 python3.11 python,$(shell $(python) -c '$(FIT)' >/dev/null 2>&1 && echo $(python))))

PIP     = $(BIN)/python -m pip --disable-pip-version-check --no-input
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
          --no-annotate --no-strip-extras --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything in it, from the lock, if it is out of date

$(STAMP): requirements.lock requirements-build.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Forebay needs Python 3.11 or 3.12 (with venv) on the PATH; found neither. Install one, or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -c 'import pip; $(FIT)' 2>/dev/null || { rm -rf $(VENV) && echo "Making $(VENV) with $$($(PYTHON) --version)" && $(PYTHON) -m venv $(VENV); }
	$(PIP) install --require-hashes --no-deps -r requirements-build.lock
	$(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@

demo: install ## the main job on 336,776 real flights, embedded, in a few minutes
	$(BIN)/forebay demo

ui: install ## Dagster on http://127.0.0.1:3000, on what the demo left
	@mkdir -p '$(DAGSTER_HOME)' && cp -n dagster.yaml '$(DAGSTER_HOME)/dagster.yaml' || true
	FOREBAY_HOME='$(abspath $(FOREBAY_HOME))' DAGSTER_HOME='$(abspath $(DAGSTER_HOME))' \
	    $(BIN)/dagster dev -w workspace.yaml --host 127.0.0.1 --port $(UI_PORT)

test: install ## everything that CI checks, static and running, on real parts
	@failed=0; \
	$(MAKE) --no-print-directory check || failed=1; \
	echo "== tests"; $(BIN)/python -m pytest -n 2 --dist worksteal || failed=1; \
	exit $$failed

check: install ## the static half of `make test`: lint, format, types, imports
	@failed=0; \
	echo "== lint";    $(BIN)/ruff check . || failed=1; \
	echo "== format";  $(BIN)/ruff format --check . || failed=1; \
	echo "== types";   $(BIN)/mypy || failed=1; \
	echo "== imports"; $(BIN)/lint-imports || failed=1; \
	exit $$failed

bench: install ## measure, as ratios within one run
	$(BIN)/python -m benchmarks online publish stream training

SEED    ?= 1
KILLS   ?= 20
MINUTES ?= 0
torture: install ## hit the stream's processes and its stores while they work: SEED=1 KILLS=20 MINUTES=0 CLUSTER=
	$(BIN)/python -m tests.torture $(SEED) --kills $(KILLS) --minutes $(MINUTES) $(if $(CLUSTER),--cluster)

fmt: install ## format, and mend what the linter can
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: ## resolve pyproject.toml anew into the two locks (UPGRADE=1 takes the newest releases)
	@test -x $(BIN)/uv || { { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && $(PIP) install uv; }
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) --all-extras --group dev --constraint requirements-build.lock --output-file requirements.lock pyproject.toml

clean: ## remove what make and the tools made; data under FOREBAY_HOME stays
	rm -rf $(VENV) build dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
