# make setup | demo | demo-pose | demo-exdet | demo-3d | test | fuzz | asan | bench | lint.  PYTHON is the interpreter that .venv is made with, VENV where it lies.
PYTHON ?= python3
VENV ?= .venv

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.centernet-installed
KERNELS := $(wildcard src/lib/external/*.pyx src/lib/external/*.h)
KERNEL_TESTS := $(addprefix tests/test_,kernel_fuzz.py kernels.py nms.py dcn.py winograd.py decode.py losses.py)

.PHONY: setup demo demo-pose demo-exdet demo-3d test fuzz asan bench lint

setup: $(STAMP)

$(STAMP): requirements.txt setup.py pyproject.toml src/lib/version.py $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	CENTERNET_REQUIRE_KERNELS=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	touch $@

demo: TASK = ctdet
demo-pose: TASK = multi_pose
demo-exdet: TASK = exdet
demo-3d: TASK = ddd
demo demo-pose demo-exdet demo-3d: setup
	PATH="$(BIN):$$PATH" bash experiments/demo.sh $(TASK)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Breaks N inputs of all formats at random, by SEED, and looks for tracebacks, crashes, hangs and damage.
fuzz: N ?= 20000
fuzz: SEED ?= 0
fuzz: setup
	$(BIN)/python tests/fuzz/run.py --count $(N) --seed $(SEED)

# The kernels under gcc's AddressSanitizer and UndefinedBehaviorSanitizer, built into build/asan (not over the others),
# and their tests. Leaks are not looked for: Python and torch keep much until they end.
asan: setup
	CENTERNET_REQUIRE_KERNELS=1 CENTERNET_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build --build-base build/asan --build-lib build/asan
	ln -sfn centernet build/asan/lib
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/asan) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest -o pythonpath=build/asan -p no:cacheprovider $(KERNEL_TESTS)

bench: setup
	$(BIN)/python benchmarks/run.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
