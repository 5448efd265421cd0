# Needs Python 3.11 to 3.14, make, and nothing else: no Docker, no Redis, no root.
#   make demo      the whole main job on a bundled sample, under two minutes
#   make test      all tests; PostgreSQL's are skipped where it is not installed
#   make test PYTHON=python3.12      another interpreter; `.venv` is made anew when it was made by another version
#   make test ANY_PYTHON=yes         a newer one than those that are tested; what has no wheels for it is compiled

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-from-lock

# Of each interpreter: "3.13". An environment of another version than the one that was asked for is made anew.
SAY_VERSION := import sys; print("%d.%d" % sys.version_info[:2])
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(READY)),)
ifneq ($(shell $(PYTHON) -c '$(SAY_VERSION)'),$(shell $(BIN)/python -c '$(SAY_VERSION)'))
ANEW := --clear
endif
endif
endif

.PHONY: anew
.PHONY: demo test bench chaos chaos-long containers lint types format clean lock schema

demo: $(READY)
	$(BIN)/labelmill demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# Over an hour on two cores; `python ops/bench/run.py --only NAME --rows N` for one measure.
bench: $(READY)
	$(BIN)/python ops/bench/run.py

# A hundred seeded schedules of faults, under 20 minutes on two cores; what it does: docs/reliability.md.
chaos: $(READY)
	$(BIN)/python ops/chaos/run.py --seeds 100

# Outages of one and two minutes, with the leases of production: some ten minutes, mostly of waiting.
chaos-long: $(READY)
	$(BIN)/python ops/chaos/run.py --long --lanes 7

# The system in containers: builds the image, runs the main job, kills and restarts every service. Skips without Docker.
containers: $(READY)
	$(BIN)/python -m pytest tests/containers

lint: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# The packages, and what runs beside them; each of the latter imports its own modules by their bare names.
types: $(READY)
	$(BIN)/mypy --strict
	for folder in ops/bench ops/chaos tests/support; do MYPYPATH=$$folder $(BIN)/mypy --strict $$folder || exit 1; done

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What `--json` prints, as JSON schema: docs/schema/documents.json.
schema: $(READY)
	$(BIN)/python -m labelmill.contracts.documents.schema docs/schema/documents.json

# What needs uv: making the lock, not using it.
lock:
	uv pip compile pyproject.toml --all-extras --python-version 3.11 --universal \
		--no-emit-index-url --no-annotate --no-header --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache labelmill-demo

# In words that every Python understands, for it may be any.
define CHECK_PYTHON
import sys
version = sys.version.split()[0]
if sys.version_info < (3, 11):
    sys.exit("Labelmill needs Python 3.11 or newer; this is " + version + ". Say: make PYTHON=/path/to/python3.11 ...")
if sys.version_info >= (3, 15) and "$(ANY_PYTHON)" != "yes":
    sys.exit("Labelmill is tested with Python 3.11 to 3.14, and for " + version + " some packages would be compiled. "
             "Say: make PYTHON=/path/to/python3.14 ..., or ANY_PYTHON=yes to try all the same")
endef
export CHECK_PYTHON

# The stamp is written last: an interrupted installation is done again.
$(READY): requirements.lock pyproject.toml $(if $(ANEW),anew)
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv $(ANEW) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)
