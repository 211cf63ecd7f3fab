# make demo    see it work            make test    everything the tests need, then the tests
# make lint    ruff, import-linter    make types   mypy --strict, pyright
# make bench   beside its peers       make clean   remove what make made
# make generate   dashboards, rules and reference pages, from the code they are made of
# All of it lives in .venv and .cache of this folder; only `make test` may install Debian packages (scripts/setup-test-tools).

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help venv dev demo test lint ruff imports format types mypy pyright bench generate clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TEST_ARGS ?= -n auto
CODE := $(wildcard rf_jobs exporters/rf_jobs_exporter tests examples benchmarks grafana deploy docs pytest_rf_jobs.py)

# Tools keep what they download or remember in this folder, not in the home directory.
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export XDG_CACHE_HOME := $(CURDIR)/.cache
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# A virtual environment that happens to be active must not be the one that is used.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

help:
	@sed -n '/^# make/s/^# //p' Makefile

# Standard output belongs to what is run: `make demo ARGS=--json` prints one document.
# What the demo and users need. A stamp: built again only when pyproject.toml changes.
venv: $(VENV)/.demo
$(VENV)/.demo: pyproject.toml
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	    python=$$(sh scripts/find-python) || exit 1; \
	    echo "making $(VENV) with $$python" >&2; \
	    "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "installing rf-jobs[demo] into $(VENV)" >&2
	@$(PIP) install --editable '.[demo]' >&2
	@touch $@

# The tools of a developer on top.
dev: $(VENV)/.dev
$(VENV)/.dev: $(VENV)/.demo
	@echo "installing rf-jobs[dev] into $(VENV)" >&2
	@$(PIP) install --editable '.[dev]' >&2
	@touch $@

demo: venv
	@$(BIN)/rf-jobs demo $(ARGS)

test: dev
	@sh scripts/setup-test-tools
	@$(BIN)/python -m pytest $(TEST_ARGS) $(ARGS)

lint: ruff imports
ruff: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
imports: dev
	@$(BIN)/lint-imports --no-logo

generate: dev
	@$(BIN)/python -m deploy.generate
	@$(BIN)/python -m docs.generate

format: dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: mypy pyright
mypy: dev
	@$(BIN)/mypy --strict $(CODE)
pyright: dev
	@$(BIN)/pyright

bench: dev
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
