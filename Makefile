# make setup   .venv with danlu and all it needs        make demo   a language model from nothing, on any machine
# make test    what CI runs                             make test-long   the same and the tests that take minutes
# make bench   the timing tables of benchmarks/           make bench-tasks, bench-planning   tasks, planner (need DANLU_DATA)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := $(wildcard constraints.txt)

.PHONY: setup demo test test-long bench bench-tasks bench-planning lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "danlu needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "No venv module: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=-c %) -e ".[dev,all]"
	@touch $@

demo: setup
	$(BIN)/danlu run recipes/demo.toml

lint: setup
	$(BIN)/ruff format --check danlu tests benchmarks
	$(BIN)/ruff check danlu tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	@command -v chromium chromium-browser google-chrome >/dev/null || echo "NOTE: no Chromium here, so the browser tests are skipped."
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-long: lint
	$(BIN)/python -m pytest -n 2

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=-c %) -e ".[bench]"
	for table in startup prepare_speed train_speed time_to_quality; do $(BIN)/python benchmarks/$$table.py || exit 1; done

bench-planning: setup
	$(BIN)/python benchmarks/planning.py

bench-tasks: setup
	$(BIN)/python benchmarks/tasks.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
