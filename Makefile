# What people and continuous integration run. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CAMPAIGNS := $(VENV)/.campaigns
# One file stays on one worker, so that what its tests share is made once.
PYTEST_FLAGS ?= -n 3 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test check servers format bench fuzz soak mutants vectors docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s  %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED) ## Two people talk through a server on this machine (INTERACTIVE=1: you are one of them; TRANSPORT=mqtt or xmpp)
	@$(BIN)/e2ee demo $(if $(INTERACTIVE),--interactive) $(if $(TRANSPORT),--transport $(TRANSPORT))

test: check servers ## All checks, then all tests
	@echo "== tests"
	@$(BIN)/pytest $(PYTEST_FLAGS) --ignore tests/architecture --ignore tests/typing

check: $(INSTALLED) ## Format, lint, types, import contracts, architecture tests
	@echo "== format, lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@echo "== types"
	@$(BIN)/mypy
	@echo "== import contracts"
	@$(BIN)/lint-imports --no-logo
	@echo "== architecture and typing tests"
	@$(BIN)/pytest -q tests/architecture tests/typing

format: $(INSTALLED) ## Format the code and apply the safe fixes of the linter
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

servers: ## Install the servers that tests start (as root on Debian; elsewhere: say what is missing)
	@scripts/servers

bench: $(INSTALLED) ## Measure against the references, write benchmarks/results/bench.json
	@test -e benchmarks/__main__.py || { echo "make bench: there are no benchmarks yet"; exit 2; }
	@$(BIN)/python -m benchmarks

fuzz: $(CAMPAIGNS) ## Fuzz decoders and conversations (SECONDS=20 for each target, TARGETS="Envelope two_parties")
	@$(BIN)/python -c 'import atheris' 2> /dev/null || { echo "make fuzz: atheris has wheels for Linux on x86-64 only"; exit 2; }
	@$(BIN)/python -m tests.fuzz run --seconds $(or $(SECONDS),20) $(TARGETS)

soak: $(INSTALLED) servers ## Random runs of devices, of transports on a bad network, of claims amid kills (TIMES=20 as many as in make test)
	@E2EE_SOAK=$(or $(TIMES),20) $(BIN)/pytest -q tests/properties/test_several_devices.py tests/integration/test_transport_chaos.py tests/integration/test_failover.py tests/integration/test_claims_of_four_processes.py

mutants: $(CAMPAIGNS) ## Break the protocol code line by line and see a test fail; resumes (MODULES="e2ee.wire.codec")
	@$(BIN)/python -m scripts.mutants $(MODULES)

vectors: $(INSTALLED) ## Generate the test vectors again; a difference to the committed ones is a wire break
	@test -e e2ee/cli/vectors/__init__.py || { echo "make vectors: there is no generator yet"; exit 2; }
	@$(BIN)/e2ee vectors generate

docs: $(INSTALLED) ## Generate the reference pages in docs/api again, from the docstrings
	@$(BIN)/python -m scripts.docs

lock: ## Write the constraints files again from pyproject.toml (UPGRADE=1: take the newest releases)
	@scripts/lock $(if $(UPGRADE),--upgrade)

clean: ## Remove the environment, caches and results
	@rm -rf $(VENV) dist build mutants benchmarks/results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Wheels only, and only the pinned ones: nothing is compiled, and nothing that was not reviewed is installed.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "CPython 3.11 or later is needed: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV): about 90 pinned packages, a minute or two the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r constraints.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(CAMPAIGNS): $(INSTALLED) constraints-campaigns.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r constraints-campaigns.txt
	@touch $@
