# Runs with GNU make 3.81 (macOS) and later. PYTHON names the interpreter for the virtual
# environment; without it the first of the candidates that is Python 3.11 or later is taken.
PYTHON ?= python3 python3.13 python3.12 python3.11
SERVER ?= auto
# Many tests wait for workers, so more processes than cores; 0 runs all in one, as for --pdb.
JOBS ?= 4
ARGS ?=
DATA ?= $(wildcard ../shared/data)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup up demo worker demo-tasks bench bench-quick bench-api bench-audit bench-context bench-footprint bench-peers bench-search bench-shapes bench-tasks bench-throughput test check lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make test SERVER=auto|embedded|container|url JOBS=4 ARGS='-k savepoint'"
	@echo "  make setup PYTHON=/path/to/python3.12"

setup: $(VENV)/.installed ## create .venv with the locked dependencies (the other targets do it too)

up: setup ## run database, API and worker with two organizations, until Ctrl-C; PORT=8000
	@$(if $(PORT),PORT="$(PORT)" )exec $(BIN)/python -m assay.up

demo: setup ## migrate a database on the embedded server, attack it, audit it
	@$(BIN)/python -m assay.demo $(ARGS)

worker: setup ## run a worker on the environment's database and broker; ARGS goes to celery
	@PATH="$(CURDIR)/$(BIN):$$PATH" docker/worker.sh $(ARGS)

# In a home of its own, with nothing else configured: database, broker and key are the embedded ones.
# BROKER=redis://localhost:6379/0 puts the messages there. The shell passes a signal on, and waits:
# nothing of it is left when it has ended.
demo-tasks: setup ## run two organizations' tests at once by a real worker, and check every count
	@home=$$(mktemp -d) && export TENANTRY_HOME="$$home" && \
	unset DATABASE_URL MIGRATION_DATABASE_URL MAINTENANCE_DATABASE_URL BROKER_URL \
	    CELERY_RESULT_BACKEND TENANTRY_TASK_KEY && \
	$(if $(BROKER),export BROKER_URL="$(BROKER)" && )\
	trap '$(BIN)/tenantry db reset --yes >/dev/null; rm -rf "$$home"' EXIT && \
	trap 'kill "$$demo" 2>/dev/null' TERM INT HUP && \
	{ $(BIN)/python -m assay.demo_tasks $(if $(DATA),--data $(DATA)) $(ARGS) & demo=$$!; } && \
	while wait "$$demo"; status=$$?; kill -0 "$$demo" 2>/dev/null; do :; done; exit $$status

bench: setup ## measure everything that isolation costs, beside others; ten minutes; ARGS=--docs, ARGS=--help
	@$(BIN)/python -m bench $(ARGS)

bench-quick: setup ## the same in two minutes, with figures of that worth
	@$(BIN)/python -m bench --quick $(ARGS)

bench-api: setup ## what the tenant layer costs a request, against a twin without it in the same run; ARGS=--help
	@$(BIN)/python -m bench.api $(ARGS)

bench-audit: setup ## how long the audit takes, on 2,000 tables with 10,000 policies too
	@$(BIN)/python -m tenantry.testing sh -ec \
	    '$(BIN)/alembic upgrade head 2>/dev/null; $(BIN)/python -m bench.audit $(ARGS)'

bench-context: setup ## what a tenant costs a unit of work, against a plain Session in the same run; ARGS=--help
	@$(BIN)/python -m bench.context $(ARGS)

bench-footprint: setup ## what the layer weighs: import time, memory; ARGS=--help
	@$(BIN)/python -m bench.footprint $(ARGS)

bench-peers: setup ## what other ways of keeping tenants apart cost and guarantee; needs PyPI; ARGS=--help
	@$(BIN)/python -m bench.peers $(ARGS)

bench-search: setup ## what searching one tenant costs, against no row security in the same run; ARGS=--help
	@$(BIN)/python -m bench.search $(ARGS)

bench-shapes: setup ## what row-level security costs each shape of a query, against explicit filters in the same run; ARGS=--help
	@$(BIN)/python -m bench.shapes $(ARGS)

bench-tasks: setup ## what the tenant layer costs a task, against plain Celery in the same run; ARGS=--help
	@$(BIN)/python -m bench.tasks $(ARGS)

bench-throughput: setup ## transactions a second of eight clients, with and without PgBouncer; ARGS=--help
	@$(BIN)/python -m bench.throughput $(ARGS)

test: setup ## run the tests in JOBS processes; SERVER chooses the PostgreSQL server, ARGS goes to pytest
	@$(BIN)/python -m pytest --tenantry-server=$(SERVER) -n $(JOBS) --dist worksteal $(ARGS)

check: setup ## lint, types, import contracts, scripts; models against migrations on a throw-away database
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck --severity=warning docker/*.sh .ci/run .ci/container-engine .ci/postgres-image
	$(BIN)/python -m tenantry.testing sh -ec '$(BIN)/alembic upgrade head; $(BIN)/alembic check'

# uv reads neither pip's configuration nor, with these flags, its own: the lock comes out the same
# on every machine and names no index. ARGS=--upgrade moves the pinned versions.
lock: $(VENV)/.locked ## resolve requirements.lock anew from pyproject.toml
	env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
	    $(BIN)/uv pip compile --no-config --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet $(ARGS) \
	    --extra dev --output-file requirements.lock pyproject.toml

clean: ## remove .venv, caches and the embedded server's data
	if [ -x $(BIN)/tenantry ] && [ -d .tenantry ]; then $(BIN)/tenantry db stop; fi
	rm -rf $(VENV) .bench .tenantry dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@for python in $(PYTHON); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    found="$$python"; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && touch $@; exit; \
	done; \
	if [ -n "$$found" ]; then \
	    echo "$$found has no venv and ensurepip modules: on Debian and Ubuntu, apt install python3-venv" >&2; \
	else \
	    echo "No Python 3.11 or later among: $(PYTHON). Install one, or name it: make setup PYTHON=…" >&2; \
	fi; exit 1

$(VENV)/.locked: $(VENV)/.created requirements.lock
	@echo "Installing the locked dependencies"
	@$(PIP) install --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml src/assay/pyproject.toml
	@echo "Installing tenantry and assay in editable mode"
	@$(PIP) install --no-deps --no-build-isolation --editable . --editable src/assay
	@touch $@
