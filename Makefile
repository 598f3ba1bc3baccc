# Each target is one line that calls something. `make help` lists them.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
SETUP := .venv/.set-up

.PHONY: help setup quickstart cluster down lint generate verify test test-quick test-cluster test-e2e test-faults bench

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(SETUP) ## Install the light Python environment into .venv.

$(SETUP): constraints/dev.txt pyproject.toml hack/setup.sh
	@hack/setup.sh

quickstart: setup ## Do the main job on this machine: train, publish, serve, ask (ONCE=1 takes it down again).
	@$(PYTHON) -m quickstart run $(if $(ONCE),--once)

cluster: setup ## Start the local cluster with a Hub and our images.
	@$(PYTHON) -m quickstart up --nodes 2

down: setup ## Stop the local cluster and the Hub.
	@$(PYTHON) -m quickstart down

lint: setup ## Run ruff, mypy, import-linter, codespell and yamllint.
	@hack/lint.sh

generate: setup ## Write what is generated: CRDs, API documentation.
	@$(PYTHON) -m generators

verify: setup ## Fail where a generated file is not what its generator writes.
	@$(PYTHON) -m generators --check

test: test-quick test-cluster test-e2e test-faults ## Run all four tiers.

test-quick: lint verify ## Run lint, verify, unit, contract, crd and chart tests.
	@$(PYTEST) tests/unit tests/contract tests/crd tests/chart

test-cluster: setup ## Run the tests on a real apiserver with a fake engine.
	@$(PYTEST) tests/cluster

test-e2e: setup ## Run the tests on real nodes with vLLM and training.
	@$(PYTEST) tests/e2e

test-faults: setup ## Run the tests that kill and hang things.
	@$(PYTEST) tests/faults

bench: setup ## Run the benchmarks (not part of test).
	@$(PYTEST) tests/bench
