# make demo   watch Headgate work on a bundled trace
# make serve  run it
# make test   lint, types, import rules, tests
# make chaos  the tests of kills and of interleavings, fifty times as many (about an hour)
# make bench  figures, as ratios in one run (needs nginx and wrk)
# make lock   choose and pin the newest versions that pyproject.toml allows
#
# Python 3.11 or newer and make are all that is needed; another Python: make demo PYTHON=python3.13
PYTHON ?= python3
BIN := .venv/bin
CODE := src tests tools benchmarks
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
# The locks name no index: every machine uses its own. Nothing is taken over from the older lock.
EXTRAS := --extra plot --extra redis --extra postgres
COMPILE := $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: demo serve test chaos bench lock clean
demo: .venv/run.stamp
	@$(BIN)/headgate demo

serve: .venv/run.stamp
	@$(BIN)/headgate serve

test: .venv/dev.stamp
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q --durations=15

# 1,000 kills at each failpoint and 10,000 schedules of ledger and flights; `make test` does 20 and some hundreds (tests/chaos.py).
chaos: .venv/dev.stamp
	HEADGATE_CHAOS=1 $(BIN)/pytest -q --durations=15 tests/faults/test_kill_points.py tests/faults/test_ledger_kill.py \
	 tests/properties/test_ledger_machine.py tests/properties/test_flights.py tests/properties/test_embedding_batches.py tests/properties/test_following.py

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.run

lock: .venv/dev.stamp
	$(COMPILE) pyproject.toml $(EXTRAS) -o requirements.lock
	$(COMPILE) pyproject.toml $(EXTRAS) --extra dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) deploy/image/build.in -o deploy/image/build.lock

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	 { echo "Headgate needs Python 3.11 or newer, for example: make demo PYTHON=python3.13"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing (once) ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock pyproject.toml | .venv/bin/python
	@echo "installing (once) ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(INSTALL) --no-build-isolation --no-deps -e .
	@touch $@ .venv/run.stamp

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
