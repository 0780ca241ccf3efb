# Everything works from a fresh clone with python3 (3.11 or newer) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
TARGETS := coreml executorch litert

.PHONY: export test test-arm train bench lint setup clean

export: $(VENV)/.installed
	$(BIN)/zoo export $(foreach target,$(TARGETS),--target $(target)) --output-dir artifacts

# A file of tests per core at a time, since most of the time is converters' Python; what compares timings alone afterwards.
test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --data=$(DATA) -n auto --dist loadfile -m "not latency"
	$(BIN)/python -m pytest --data=$(DATA) -m latency

# The int8 files on emulated Cortex-A53 and A76: bits, instruction counts, no growth. As root it installs qemu-user and a cross
# compiler (apt); otherwise it says what to install. Runtimes and runners go to build/arm.
test-arm: $(VENV)/.installed
	$(BIN)/python -m tools.arm.provision
	$(BIN)/python -m pytest -m arm tests/arm tests/phone

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(VENV)/.installed
	$(BIN)/zoo train --config configs/utnet-m.yaml --output-dir runs/utnet-m --data $(DATA)/train_rgb

# Latency on this machine: every compact model, target, precision and thread count, against fp32 and a large convolution; then
# the flagship operator by operator. A second run of `make bench` only exports again what was made from other weights.
BENCH := --target executorch --target litert --target onnx
bench: $(VENV)/.installed
	$(BIN)/zoo benchmark utnet-n utnet-s utnet-m utnet-l utnet-demosaic $(BENCH) --precision int8,fp16,fp32 --threads 1,2 --record evidence/latency
	$(BIN)/zoo benchmark bayer-codec-s bayer-codec-m $(BENCH) --precision int8,fp32 --threads 1,2 --record evidence/latency
	$(BIN)/zoo benchmark utnet-m $(BENCH) --precision int8,fp32 --profile --num-runs 50 --record evidence/profile

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) artifacts build *.egg-info
