# Each target does all of its own set-up, inside this checkout: .venv (pinned requirements, hashes checked) and .servers (what the PATH lacks).
# Needs Python 3.11 or newer, make, and a network the first time. `make help` lists the targets.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python that will do: the system's own where it is new enough. Another one: make PYTHON=python3.12 test
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
endif

PY := .venv/bin/python
RUN := .venv/bin/margin-monitor
WORKERS ?= 2
DEMO_SECONDS ?= 60
FUZZ_INPUTS ?= 10000000
FAULTS ?= --lanes 3
SILENCES ?= --runs 20 --calm 1800
SLOWNESS ?= --seconds 600
export DEMO_SECONDS
export PATH := $(CURDIR)/.servers/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PYTHONNOUSERSITE := 1

# Temporary files of tests go to a folder of their own that is removed at the end, also on failure. Its path is short: unix sockets need that.
IN_TEMP := temp=$$(mktemp -d /tmp/mm.XXXXXX) && trap 'rm -rf "$$temp"' EXIT INT TERM && TMPDIR="$$temp" PYTEST_DEBUG_TEMPROOT="$$temp"

# An environment made at another path runs the code of that path: make it anew.
ifneq ($(shell cat .venv/.place 2>/dev/null),$(CURDIR))
.PHONY: .venv/.run .venv/.dev
endif

.PHONY: help demo test check conformance bench faults slow fuzz docs-check generated wheel clean servers demo-servers python

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: .venv/.run demo-servers  ## the whole daemon on a simulated market with a crash, for DEMO_SECONDS (60)
	@$(RUN) demo

test: .venv/.dev servers  ## all tests but the long campaigns, on real servers, under 10 minutes on 2 cores
	@$(IN_TEMP) $(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(ARGS)

check: .venv/.dev  ## ruff, ruff format, mypy --strict, and the walk over the imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) tests/test_imports.py

conformance: .venv/.dev servers  ## the worked examples of every venue against the margin model
	@$(IN_TEMP) $(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "slow or not slow" tests/conformance $(ARGS)

bench: .venv/.dev servers  ## the measured figures: each tests/benchmarks/bench_*.py prints its own
	@$(IN_TEMP) sh -c 'for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(PY) "$$file" || exit 1; done'

faults: .venv/.dev servers  ## break everything, compare every row with an independent replay: a line per test, under 15 minutes
	@$(IN_TEMP) $(PY) tests/faults/campaign.py $(FAULTS)

slow: .venv/.dev servers  ## the tests marked slow, and a million mutated frames at each venue's codec
	@$(IN_TEMP) $(PY) -m pytest -n $(WORKERS) --dist loadgroup -m slow --timeout 1800 $(ARGS)
	@$(IN_TEMP) $(PY) -m tests.fuzz.campaign --inputs 1000000
	@$(IN_TEMP) $(PY) tests/faults/campaign_silences.py $(SILENCES)
	@$(IN_TEMP) $(PY) tests/faults/campaign_slow.py $(SLOWNESS)

fuzz: .venv/.dev  ## FUZZ_INPUTS (10 million) mutated frames at each venue's codec: a night's work
	@$(IN_TEMP) $(PY) -m tests.fuzz.campaign --inputs $(FUZZ_INPUTS)

docs-check: .venv/.dev servers  ## run every command block of the documents, and follow every link
	@$(IN_TEMP) $(PY) scripts/docs_check.py $(ARGS)

generated: .venv/.dev  ## write the dashboards, the Kubernetes rules and the reference pages anew from their sources
	$(PY) deploy/grafana/generate.py
	$(PY) deploy/kubernetes/generate.py
	$(PY) scripts/reference.py

wheel: .venv/.dev  ## build dist/*.whl from pinned build tools
	$(PY) -m hatchling build -t wheel

clean:  ## remove the environment, the unpacked servers and all caches
	rm -rf .venv .servers dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

servers: .venv/.run
	@$(PY) scripts/make_servers.py

demo-servers: .venv/.run
	@$(PY) scripts/make_servers.py redis-server mosquitto

python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found as python3, python3.13, python3.12 or python3.11; install one or say make PYTHON=/path/to/python" >&2; exit 2; }

.venv/.run: requirements.txt requirements-build.txt pyproject.toml scripts/make_venv.py scripts/debian.py | python
	@$(PYTHON) scripts/make_venv.py requirements-build.txt requirements.txt
	@echo "$(CURDIR)" > .venv/.place
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	@$(PYTHON) scripts/make_venv.py requirements-dev.txt
	@touch $@
