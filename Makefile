# Needs python3 >= 3.11 and a C/C++ compiler; everything else is fetched by pip into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt scripts/llama_wheel.py
RUNTIME := $(VENV)/.setup
DEV := $(VENV)/.setup-dev

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check format bench nano docs clean

help:
	@echo 'make setup      .venv with what preflexor needs to run (no torch); compiles llama.cpp the first time'
	@echo 'make demo       the whole thing on the bundled model and library'
	@echo 'make test       the tests; installs torch and the development tools first'
	@echo 'make check      format, lint, types and layers'
	@echo 'make format     rewrite the sources in the agreed format'
	@echo 'make bench      the benchmarks'
	@echo 'make nano       the bundled model from seed to GGUF in runs/nano; about two and a half hours on one core'
	@echo 'make docs       the documentation as a site in build/site'
	@echo 'make clean      remove .venv; compiled wheels stay in the cache'
	@echo 'PYTHON=python3.12 make setup picks another interpreter.'

setup: $(RUNTIME)

setup-dev: $(DEV)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo 'setup: $(PYTHON) is not on the PATH; install Python 3.11 or newer, or say PYTHON=/path/to/python3 make setup' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: $$($(PYTHON) --version) is too old; install Python 3.11 or newer, or say PYTHON=python3.12 make setup" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'setup: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }

$(RUNTIME): $(SOURCES) | $(BIN)/python
	@$(BIN)/python scripts/llama_wheel.py
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# torch goes first and exactly: any other way to ask for it may replace a build without CUDA by one of several GB.
$(DEV): $(RUNTIME)
	$(PIP) install --constraint constraints.txt torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	$(PIP) install --constraint constraints.txt --editable '.[dev,docs,train,mlx,ray,quantize,tui,web,graph]'
	@touch $@

demo: setup
	@$(BIN)/preflexor demo

# Two processes, and a file's tests in one of them: most wait for something, and fixtures are dear.
test: setup-dev
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

# NANO="--base nano --rows 100" make nano: more options for it.
nano: setup-dev
	@$(BIN)/python -m preflexor_training.nano make --out runs/nano $(NANO)

docs: setup-dev
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV)
