# `make quickstart` and `make test` do all the set-up on a fresh machine with Python 3.11 or newer and pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install quickstart quickstart-classify quickstart-translate test lint types clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch "$@"

quickstart: install
	$(BIN)/python quickstart/run.py

quickstart-classify quickstart-translate: quickstart-%: install
	$(BIN)/python quickstart/tasks.py $*

test: install lint types
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check src tests benchmarks quickstart scripts
	$(BIN)/ruff format --check src tests benchmarks quickstart scripts

types: install
	$(BIN)/mypy

clean:
	rm -rf .venv build dist runs
