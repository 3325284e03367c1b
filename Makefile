# `make demo` and `make test` need Python, a C++ compiler and make; they make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TASK ?= digits
OUT ?= out

SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h')

.PHONY: demo test bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(BIN)/pyfastcal demo --task $(TASK) --out $(OUT)

test: $(VENV)/.built-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: $(VENV)/.built-dev
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.built-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.cpp' -o -name '*.h')

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.requirements: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt requirements-oracles.txt $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-oracles.txt
	@touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.requirements
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.built-dev: $(VENV)/.built $(VENV)/.requirements-dev
	@touch $@

clean:
	rm -rf $(VENV) build dist $(OUT) *.egg-info pyfastcal/*.so
