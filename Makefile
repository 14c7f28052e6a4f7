# make train, make test, make long, make slow, make extras, make distributed, make lint, make docs, make bench, make kill, make gpu: each makes .venv first when it is missing
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2

.PHONY: train test long slow extras distributed lint docs bench kill gpu wheel clean
train: $(VENV)/.ready
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

long: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(JOBS) -m "long and not slow" $(ARGS)

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(JOBS) -m slow $(ARGS)

extras: $(VENV)/.extras
	$(BIN)/python -m pytest -m "launchers or loggers" $(ARGS)

distributed: $(VENV)/.ready
	$(BIN)/python -m pytest -m distributed $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	$(BIN)/python -m pytest -m docs tests/pages

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.compare $(ARGS)

kill: $(VENV)/.ready
	$(BIN)/python -m benchmarks.kill $(ARGS)

gpu: $(VENV)/.bench
	$(BIN)/python benchmarks/gpu.py $(ARGS)

wheel: $(VENV)/.ready
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build site .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "bbframe needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --seed --allow-existing --python "$(PYTHON)" $(VENV) && uv pip install --python $(BIN)/python -e '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

$(VENV)/.extras: $(VENV)/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,joblib,submitit,ray,tensorboard,wandb,mlflow,trackio]'
	@touch $@

$(VENV)/.bench: $(VENV)/.ready
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --python $(BIN)/python -e '.[dev,bench]'; \
	else \
		$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,bench]'; \
	fi
	@touch $@

$(VENV)/.docs: $(VENV)/.ready
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --python $(BIN)/python -e '.[dev,docs]'; \
	else \
		$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,docs]'; \
	fi
	@touch $@
