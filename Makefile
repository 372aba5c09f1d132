# Needs Python 3.11 or later with venv, and make. Everything else is installed into .venv from requirements/, hash by hash.
#
#   make dev  [ARGS="--once --json"]    a real mesh on this machine, and what it promises, shown live
#   make test                           everything CI checks
#   make unit [ARGS="-k merkle"]        the tests alone

ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
    "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
endif
ifeq ($(PYTHON),)
$(error govmesh needs Python 3.11 or later with its venv module; name one with PYTHON=…)
endif

BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help runtime tools dev test format check-format lint types imports wheel unit halves kills coverage schemas bench world pins clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

runtime:
	@"$(PYTHON)" requirements/install.py runtime

tools:
	@"$(PYTHON)" requirements/install.py dev

dev: runtime ## a real mesh on this machine (ARGS go to `mesh dev`)
	@$(BIN)/mesh dev $(ARGS)

test: check-format lint types imports wheel halves ## everything CI checks

format: tools ## rewrite the code in the one layout
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

check-format: tools
	$(BIN)/ruff format --check .

lint: tools ## ruff
	$(BIN)/ruff check .

types: tools ## mypy and basedpyright
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

imports: tools ## the import contracts of pyproject.toml
	$(BIN)/lint-imports --no-logo

wheel: tools ## build the wheel, look inside, use it elsewhere
	$(BIN)/python tests/house/check_wheel.py

unit: tools ## the tests alone (ARGS go to pytest)
	$(BIN)/python -m pytest $(ARGS)

halves: tools ## all tests, those that start processes beside those that only compute
	@$(BIN)/python tests/halves.py $(ARGS)

kills: tools ## kill -9 at every failpoint, fifty times each (MESH_KILLS=N for more or fewer)
	MESH_KILLS=$(or $(MESH_KILLS),50) $(BIN)/python -m pytest tests/live/test_failpoints.py $(ARGS)

coverage: tools ## the tests, with the branches they miss
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

schemas: runtime ## render schemas/, nodes/ and compose/ anew from the code
	$(BIN)/python -m mesh.contracts schemas
	$(BIN)/python -m mesh.deploy nodes compose

bench: runtime ## measure beside the floors (ARGS go to `mesh bench`)
	@$(BIN)/mesh bench $(ARGS)

world: runtime ## seeded worlds (ARGS, else --seeds 0..500)
	@$(BIN)/mesh world run $(or $(ARGS),--seeds 0..500)

pins: ## resolve pyproject.toml into requirements/*.txt anew (needs uv; ARGS=--upgrade moves the pins)
	requirements/refresh.sh $(ARGS)

clean: ## forget .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
