# `make demo` and `make test` need Python, a C++ compiler and make; they make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TASK ?= animals
OUT ?= out

# The tests build the same kernels many times: once requirements-dev.txt is there, ccache stands before the compilers.
CACHING := $(abspath $(VENV))/lib/ccache
export PATH := $(CACHING):$(PATH)
export CCACHE_DIR ?= $(CURDIR)/build/ccache

SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test bench lint sanitize arm-tools arm emulate mutate cuda-check gpu clean
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(BIN)/pyfastcal demo --task $(TASK) --out $(OUT)

test: $(VENV)/.built-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.built-dev
	$(BIN)/python -m benchmarks $(ARGS)

# The tests of the CPU kernels, built with g++'s address and undefined-behaviour sanitizers, for each instruction set.
sanitize: $(VENV)/.requirements-dev
	$(BIN)/python -m scripts.checks.sanitize $(ARGS)

# The kernels for 64-bit Arm on another processor: compiled by Debian's cross-compiler and run under qemu. arm-tools
# installs both, as root or by sudo, where apt-get is; `make test` skips what needs them without.
arm:
	$(MAKE) --no-print-directory -C tests/cpu_kernels -j $(shell nproc) aarch64 ARGS="$(ARGS)"

arm-tools:
	{ command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64; } || { SUDO=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends g++-aarch64-linux-gnu qemu-user; }

# The CUDA half without a GPU. emulate: its kernels on a CPU model of CUDA, plain and under sanitizers; mutate: how many
# seeded bugs that notices; cuda-check: compiles for every architecture, prints what kernels use, fails on spills and on
# products by wgmma that are not what they should be.
emulate:
	$(MAKE) --no-print-directory -C tests/cuda_model -j $(shell nproc) -O all ARGS="$(ARGS)"

mutate:
	$(PYTHON) -m scripts.cuda.mutate $(ARGS)

cuda-check: $(VENV)/.requirements
	$(BIN)/python -m scripts.cuda.check $(ARGS)

# On a machine with a GPU, with the Python, torch and packages that are installed there and no network: builds in place,
# tests, checks with compute-sanitizer and measures, within minutes; ARGS=--help says more, ARGS=--dry-run prints how.
gpu:
	$(PYTHON) -m scripts.gpu $(ARGS)

lint: $(VENV)/.built-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests/cpu_kernels tests/cuda_model benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The last line: `import open_clip` beside a CPU torch, for which the registry may have no torchvision that fits.
$(VENV)/.requirements: requirements.txt pyfastcal/installation/torchvision_import.py | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python pyfastcal/installation/torchvision_import.py
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt requirements-oracles.txt $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-oracles.txt
	@mkdir -p $(CACHING)
	@for name in gcc g++ cc c++; do ln -sf ../../bin/ccache $(CACHING)/$$name; done
	@touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.built-dev: $(VENV)/.requirements-dev $(VENV)/.built
	@touch $@

clean:
	rm -rf $(VENV) build dist $(OUT) *.egg-info pyfastcal/*.so pyfastcal/_build.json
