# make setup | demo | demo-pose | demo-exdet | demo-3d | test | bench | lint.  PYTHON is the interpreter that .venv is made with, VENV where it lies.
PYTHON ?= python3
VENV ?= .venv

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.centernet-installed
KERNELS := $(wildcard src/lib/external/*.pyx src/lib/external/*.h)

.PHONY: setup demo demo-pose demo-exdet demo-3d test bench lint

setup: $(STAMP)

$(STAMP): requirements.txt setup.py pyproject.toml $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	touch $@

demo: TASK = ctdet
demo-pose: TASK = multi_pose
demo-exdet: TASK = exdet
demo-3d: TASK = ddd
demo demo-pose demo-exdet demo-3d: setup
	PATH="$(BIN):$$PATH" bash experiments/demo.sh $(TASK)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: setup
	$(BIN)/python benchmarks/run.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
