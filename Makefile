# `make demo` and `make test` are the two to know; the rest is for those who change the code.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# More words for pytest, e.g. `make test PYTEST_ARGS="-k imap"`.
PYTEST_ARGS ?=
# Scenarios for `make bench-cluster`; none: all.
BENCH ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv dev clients services test test-faults test-cluster demo-cluster lint format types docs bench bench-cluster demo fuzz soak build clean

help:  ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

# --- environments: made once, made again when pyproject.toml changes ----------------------------------------------

$(VENV)/made-test: pyproject.toml .ci/find-python
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    python=$$(.ci/find-python); echo "making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); fi
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/made-dev: $(VENV)/made-test
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

venv: $(VENV)/made-test  ## .venv with the package (editable) and what the tests need
dev: $(VENV)/made-dev    ## the same with mypy, ruff, towncrier, tox

clients:
	@.ci/clients

services: venv           ## the servers of the distributed store (Cassandra, NATS, VersityGW), fetched for the tests
	@.ci/services
	$(BIN)/python -m tests.services fetch

# --- what everybody runs --------------------------------------------------------------------------------------------

demo: venv               ## a demo domain with two accounts and their mail, servers up, and how to use them
	$(BIN)/python -m twisted_mail.admin.demo

demo-cluster: services   ## a whole cluster on loopback in one terminal: stores of three nodes, six mail nodes, two users
	$(BIN)/python -m tests.services.demo

test: venv clients       ## all tests
	@.ci/services
	@$(BIN)/python -m tests.services fetch --or-go-on
	@.ci/test $(PYTEST_ARGS)

test-faults: venv clients services  ## the tests marked faults: servers of a cluster are killed, cut off and starved for an hour
	$(BIN)/python -m pytest -m faults --timeout 3600 $(PYTEST_ARGS) tests

test-cluster: venv       ## the suites of the distributed store on servers of yours: CQL=cql://… S3=s3://… NATS=nats://…
	$(BIN)/python -m pytest -m "cluster and not faults" $(PYTEST_ARGS) tests

# --- for those who change the code --------------------------------------------------------------------------------

lint: dev                ## ruff
	$(BIN)/ruff check .

format: dev              ## ruff's corrections of imports and the like
	$(BIN)/ruff check --fix .

types: dev               ## mypy, strict
	$(BIN)/mypy

docs: venv               ## the reference that is made from the code, and its tests
	$(BIN)/python -m twisted_mail.tap.reference docs/reference/configuration.md
	$(BIN)/python -m twisted_mail.admin.reference docs/reference/mailctl.md
	$(BIN)/python -m pytest -q tests/tap/test_reference.py tests/test_house.py

bench: venv              ## speed, beside Dovecot and Postfix where they are installed
	$(BIN)/python -m benchmarks

bench-cluster: services  ## size and speed of the distributed store: Cassandra x3, NATS x3, S3; BENCH="hot idle" picks scenarios
	$(BIN)/python -m benchmarks.distributed $(BENCH)

fuzz: venv               ## the tests marked fuzz: generated input for minutes
	$(BIN)/python -m pytest -m fuzz --timeout 3600 $(PYTEST_ARGS) tests

soak: venv clients       ## the tests marked soak: the real server under load for minutes
	$(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS) tests

build: dev               ## sdist and wheel in dist/
	$(BIN)/python -m hatchling build

clean:                   ## what can be made again
	rm -rf dist build .tox .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage plugins/twisted/plugins/dropin.cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
