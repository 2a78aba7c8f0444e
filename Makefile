# HandleHome. `make help` lists the targets.
# The first Python here that is new enough; `make PYTHON=...` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo test lint bench soak lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make the environment in .venv/ from requirements.lock

$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (about a minute the first time) ..."
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed (Debian: python3-venv)."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## one simulated call through the real daemon, shown live
	@$(BIN)/handlehome demo

test: setup  ## the tests (under five minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadfile

lint: setup  ## ruff and strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@cd src && ../$(BIN)/python -m mypy -p handlehome

bench: setup  ## CPU per frame and latency beside a plain relay
	@$(BIN)/handlehome bench

soak: setup  ## the long campaigns
	@$(BIN)/python -m pytest -m soak

lock:  ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
