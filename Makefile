# `make demo` and `make test` need nothing set up before: each makes .venv, installs, and runs to its end.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHROMIUM := { command -v chromium || command -v google-chrome; } >/dev/null

.PHONY: demo test browser check bench format install

demo: install
	$(BIN)/rediffuse train

test: install browser
	$(BIN)/python -m pytest -n auto

# The tests of the pages that people open need one; CI must have it.
browser:
	@if ! $(CHROMIUM) && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; \
	fi || true
	@$(CHROMIUM) || echo "No Chromium: the tests of the pages in a browser (tests/report) will be skipped."

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_rooms.py tests/maths tests/samplers tests/algorithms

# Ours against TRL's trainer, which gets an environment of its own: .venv-peer.
bench: install
	$(BIN)/python -m benchmarks.peer

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(BIN)/rediffuse

$(BIN)/rediffuse: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
