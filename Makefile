# Everything is set up in .venv on first use; `make train` and `make test` need Python 3.11 and g++ alone.
PYTHON ?= python3
BIN := .venv/bin
RECORDINGS = build/recordings/random.pt $(wildcard build/recordings/trained.pt)
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cc' -o -name '*.h')
CXX_FILES := $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.c')

.PHONY: install train test test-sanitized wheel-check docs chaos soak soak-resets results results-learning benchmark benchmark-quick \
    peers lint format clean

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

# The C++ parts under AddressSanitizer and UndefinedBehaviorSanitizer, in a build of their own. NetHack itself comes as a
# binary, so of its memory errors only those show that reach our memory. Python's own leaks are not looked for.
SANITIZED := $(CURDIR)/build/sanitized
SANITIZED_TESTS := tests/engine/test_game.py tests/envs/test_vector_env.py tests/envs/test_replay.py \
    tests/runtime/test_layout.py tests/runtime/test_slot_protocol.py tests/runtime/test_turns.py \
    tests/runtime/test_group.py tests/graph/test_conditions.py tests/graph/test_stairs_memory.py
test-sanitized: install
	PBM_SANITIZE=address,undefined $(BIN)/python -W ignore setup.py -q build --build-base $(SANITIZED) \
	    --build-lib $(SANITIZED)/lib
	PYTHONPATH=$(SANITIZED)/lib ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	    $(BIN)/pytest -p no:cacheprovider $(SANITIZED_TESTS)

# What a release would hand out, tried: distributions built from what git tracks, the wheel installed in an empty
# environment with its pinned dependencies, a run trained with it. Leaves nothing behind; takes 2 GB meanwhile.
wheel-check: install
	tools/wheel_check.sh

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

# Writes docs/results/engine.* and pipeline.*: half an hour on a machine that does nothing else.
results: install
	$(BIN)/python benchmarks/engine.py --games 1 32 128 --rounds 7 --results
	$(BIN)/python benchmarks/pipeline_results.py

# Writes docs/results/curriculum.*: about ten hours of training runs by the plan in benchmarks/curriculum.yaml. May be
# stopped at any time and started again; what has a row in docs/results/curriculum/ is not run again.
results-learning: install
	$(BIN)/python benchmarks/curriculum.py
	$(BIN)/python benchmarks/curriculum.py --results

# The peers' environments, in build/peers: a few minutes and about 2 GB.
peers: install
	$(BIN)/python benchmarks/peers/environments.py

# Writes docs/results/benchmarks.*, and the pages of the parts that it quotes: most of a day on a machine that does nothing
# else. May be stopped at any time and started again; what has a row in docs/results/peers/ is not run again.
benchmark: peers
	mkdir -p build/recordings
	$(BIN)/python benchmarks/engine.py --rounds 7 --results
	$(BIN)/python benchmarks/ops.py --threads 1 --compile --results
	$(BIN)/python benchmarks/play.py --rows 2048 --out build/recordings/random.pt
	$(BIN)/python benchmarks/graph.py --observations $(RECORDINGS) --compile --results
	$(BIN)/python benchmarks/side_by_side.py
	$(BIN)/python benchmarks/side_by_side.py --results

# Has something become slower? Ratios against the stored ones, in less than five minutes.
benchmark-quick: install
	$(BIN)/python benchmarks/quick.py

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
	rm -rf .venv build dist *.egg-info polybeast_moe/*.so polybeast_moe/pbm-actor polybeast_moe/pbm-games
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find benchmarks polybeast_moe tests tools -name __pycache__ -prune -exec rm -rf {} +
