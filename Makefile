# Needs Python 3.11 or newer, make, and nothing else: no Docker, no Redis, no root.
#   make demo      the whole main job on a bundled sample, under two minutes
#   make test      all tests; PostgreSQL's are skipped where it is not installed
#   PYTHON=python3.12 make test      another interpreter

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-from-lock

.PHONY: demo test bench chaos chaos-long lint format clean lock

demo: $(READY)
	$(BIN)/labelmill demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadgroup

# Over an hour on two cores; `python ops/bench/run.py --only NAME --rows N` for one measure.
bench: $(READY)
	$(BIN)/python ops/bench/run.py

# A hundred seeded schedules of faults, under 20 minutes on two cores; what it does: docs/reliability.md.
chaos: $(READY)
	$(BIN)/python ops/chaos/run.py --seeds 100

# Outages of one and two minutes, with the leases of production: some ten minutes, mostly of waiting.
chaos-long: $(READY)
	$(BIN)/python ops/chaos/run.py --long --lanes 7

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What needs uv: making the lock, not using it.
lock:
	uv pip compile pyproject.toml --all-extras --python-version 3.11 --universal \
		--no-emit-index-url --no-annotate --no-header --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache labelmill-demo

# The stamp is written last: an interrupted installation is done again.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Labelmill needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say: PYTHON=/path/to/python3.11 make ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)
