# Everything is set up in .venv on first use; `make train` and `make test` need Python 3.11 and g++ alone.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cc' -o -name '*.h')
CXX_FILES := $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.c')

.PHONY: install train test docs chaos soak soak-resets lint format clean

install: .venv/.built

.venv/.dependencies: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	touch $@

.venv/.built: .venv/.dependencies $(SOURCES)
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

train: install
	$(BIN)/polybeast-moe train configs/quickstart.yaml

test: install
	$(BIN)/pytest

# The documentation as a site in build/site; a broken link or a reference to nothing is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Processes killed within a run, then whole runs.
chaos: install
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/chaos_runs.py --results

# An hour of training, watched.
soak: install
	$(BIN)/python benchmarks/soak.py --results

# What 100,000 episodes leave behind: nothing.
soak-resets: install
	$(BIN)/python benchmarks/resets.py --resets 100000

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf .venv build *.egg-info polybeast_moe/*.so
