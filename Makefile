# `make` lists the targets. Targets that need .venv set it up once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
# Set these on the command line (`make serve PORT=9000`). The environment does not set them, because HOST and URL may mean something else there.
HOST =
PORT =
VARIANTS =
URL =
CONCURRENCY =
DURATION =
DATA =
WHEELS =
IMAGE =
TARGET = cpu
SBOM = sbom.json
REQUIREMENTS = deploy/requirements.txt
OUT := reports/$(shell date -u +%Y%m%dT%H%M%SZ)
# More flags for the command of a target: `make test FLAGS='-k metrics'`, `make compare FLAGS=--help`.
FLAGS =

BIN := .venv/bin
INSTALLED := .venv/.installed
PEERS := .venv-bench/.installed
LOADTEST = --out $(OUT) $(if $(VARIANTS),--variants $(VARIANTS)) $(if $(CONCURRENCY),--concurrency $(CONCURRENCY)) \
	$(if $(DURATION),--duration $(DURATION)) $(FLAGS)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## set up .venv with the versions of constraints.txt; PYTHON= names the interpreter

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || true);" \
			"name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv || { \
		echo "error: '$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[service,tracing,loadtest,dev]'
	@touch $@

.PHONY: serve
serve: $(INSTALLED) ## start the service; PORT=8000 HOST=127.0.0.1 VARIANTS=fp32,fp16,int8
	@exec $(BIN)/python -m service $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) \
		$(if $(VARIANTS),--variants $(VARIANTS)) $(FLAGS)

.PHONY: test
test: lint ## run lint, type checks and tests
	$(BIN)/python -m pytest $(FLAGS)

.PHONY: compare
compare: $(INSTALLED) ## run the load test over every variant; URL= measures a running service; VARIANTS= CONCURRENCY=1,8 DURATION=20 OUT=
	@exec $(BIN)/python $(if $(URL),-m loadtest --url $(URL),deploy/compare.py) $(LOADTEST)

.PHONY: bench
bench: bench-engines bench-serving ## run both benchmarks; takes long and needs an idle machine

.PHONY: bench-engines
bench-engines: $(PEERS) ## measure the engines on this CPU beside ONNX Runtime, OpenVINO and torch's toolboxes
	$(PEERS:/.installed=)/bin/python -m benchmarks.engines $(FLAGS)

.PHONY: bench-serving
bench-serving: $(INSTALLED) ## measure the overhead of the service beside LitServe and FastAPI; needs wrk
	$(BIN)/python -m benchmarks.hop $(FLAGS)

# The peers have their own environment, because the service does not need them.
$(PEERS): pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	[ -x .venv-bench/bin/pip ] || $(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/pip install --disable-pip-version-check -c constraints.txt -e '.[service]' -r benchmarks/requirements-peers.txt
	@touch $@

.PHONY: gpu-check
gpu-check: $(if $(WHEELS),,$(INSTALLED)) ## measure everything that needs a GPU, into docs/results/; DATA= is CIFAR-10; OUT=; WHEELS= for a machine without network
	@exec $(if $(WHEELS),$(PYTHON),$(BIN)/python) -m benchmarks.gpu_check $(if $(WHEELS),--wheels $(WHEELS)) \
		$(if $(DATA),--data $(DATA)) --out $(OUT) $(FLAGS)

.PHONY: wheels
wheels: $(INSTALLED) ## download the packages for gpu-check on a machine without network, into WHEELS=wheels; FLAGS='--python 3.12'
	$(BIN)/python -m benchmarks.wheels --out $(or $(WHEELS),wheels) $(FLAGS)

.PHONY: lint
lint: $(INSTALLED) ## run ruff, mypy and hadolint without changing files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@[ ! -x $(BIN)/hadolint ] || $(BIN)/hadolint Dockerfile
	$(BIN)/mypy

.PHONY: kubectl
kubectl: $(INSTALLED) ## install kubectl into .venv for the tests, unless there is one
	@command -v kubectl || [ -x $(BIN)/kubectl ] || $(BIN)/python deploy/kubernetes/install_kubectl.py

.PHONY: manifests
manifests: $(INSTALLED) ## write the manifests that repeat alerts, rules and dashboard
	$(BIN)/python deploy/kubernetes/generate.py

.PHONY: fmt
fmt: $(INSTALLED) ## format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: constraints
constraints: ## resolve versions and hashes after a change in pyproject.toml; UPGRADE=1 raises all versions
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" && "$$tool/bin/pip" install -q uv && \
		"$$tool/bin/uv" pip compile -q $(if $(UPGRADE),--upgrade) pyproject.toml -o constraints.txt && \
		"$$tool/bin/uv" pip compile -q --upgrade --no-annotate --generate-hashes --no-all-extras --extra service --extra tracing \
			--extra build -c constraints.txt pyproject.toml -o deploy/requirements.txt

.PHONY: audit
audit: ## look for known vulnerabilities of the packages in the image; docs/supply-chain.md explains findings
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" && "$$tool/bin/pip" install -q pip-audit && \
		"$$tool/bin/pip-audit" --strict --disable-pip --require-hashes -r deploy/requirements.txt $(FLAGS)

.PHONY: image-check
image-check: ## build the image and run it confined; TARGET=cpu IMAGE= FLAGS='--engine podman'; needs docker or podman
	$(PYTHON) deploy/image_check.py --target $(TARGET) $(if $(IMAGE),--image $(IMAGE)) $(FLAGS)

.PHONY: sbom
sbom: ## write the bill of materials of the image's Python packages (CycloneDX) to SBOM=sbom.json; REQUIREMENTS=deploy/requirements.txt
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" && "$$tool/bin/pip" install -q cyclonedx-bom && \
		"$$tool/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible --output-file $(SBOM) $(FLAGS) $(REQUIREMENTS)

.PHONY: clean
clean: ## remove .venv, .venv-bench and the caches; reports/ and runs/ stay
	rm -rf .venv .venv-bench .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
