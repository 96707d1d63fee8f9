# `make demo` and `make test` need nothing set up before: each makes .venv, installs, and runs to its end.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format install

demo: install
	$(BIN)/rediffuse train

test: install
	$(BIN)/python -m pytest -n auto

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_rooms.py tests/maths tests/samplers tests/algorithms

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(BIN)/rediffuse

$(BIN)/rediffuse: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
