# make PYTHON=python3.12 test   takes another interpreter for the environment; 3.11 or newer
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint types docs reliability
.DEFAULT_GOAL := test

# The stamp is written last, so that an installation that was cut short is done again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/medmtl demo

test: .venv/installed
	$(BIN)/pytest -q -m "not slow"

test-slow: .venv/installed
	$(BIN)/pytest -q -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python docs/make_kinds.py

# the page is written in any case: it shows what failed
reliability: .venv/installed
	$(BIN)/pytest -q --reliability .venv/reliability.json; code=$$?; \
	$(BIN)/python -m docs.make_reliability .venv/reliability.json && exit $$code
