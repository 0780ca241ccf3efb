# Everything works from a fresh clone with python3 (3.11 or newer) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
TARGETS := coreml executorch litert

.PHONY: export test train bench lint setup clean

export: $(VENV)/.installed
	$(BIN)/zoo export $(foreach target,$(TARGETS),--target $(target)) --output-dir artifacts

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --data=$(DATA)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(VENV)/.installed
	$(BIN)/zoo train --config configs/utnet-m.yaml --output-dir runs/utnet-m --data $(DATA)/train_rgb

# Latency on this machine: every model and target, int8 against fp32 and against a large convolution, one thread.
bench: $(VENV)/.installed
	for name in utnet-n utnet-s utnet-m; do \
	  $(BIN)/zoo benchmark $$name --target executorch --target litert --threads 1,2 --record evidence/latency || exit 1; done

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) artifacts build *.egg-info
