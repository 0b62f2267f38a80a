# make setup | demo | test | lint.  PYTHON is the interpreter that .venv is made with, VENV where it lies.
PYTHON ?= python3
VENV ?= .venv

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.centernet-installed
KERNELS := $(wildcard src/lib/external/*.pyx)

.PHONY: setup demo test lint

setup: $(STAMP)

$(STAMP): requirements.txt setup.py pyproject.toml $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	touch $@

demo: setup
	PATH="$(BIN):$$PATH" bash experiments/demo.sh ctdet

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
