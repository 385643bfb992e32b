# `make demo` and `make test` need nothing but Python 3.11, 3.12 or 3.13 and make; they set up .venv
# when needed. `make test PYTHON=python3.13 VENV=.venv-3.13` names another interpreter and place.
VENV := .venv
BIN := $(VENV)/bin
# Most of a test's time is compilation, which takes one core: a process for each.
SPREAD := --numprocesses=auto --dist=worksteal --durations=20
# What pytest is to run, when not all: `make proof TESTS=tests/serving`, `make test CASES=--one-case`.
TESTS :=
CASES :=
# Of benchmarks/device.py.
OPTIONS :=

.PHONY: demo test proof device docs lint clean environment compiler

demo: environment
	$(BIN)/dsirm run --gin_file=gin/runs/demo.gin --gin.MODEL_DIR="'out/demo'"
	$(BIN)/dsirm export --gin_file=out/demo/config.gin --show_queries
	@echo "explore it: $(BIN)/dsirm serve --bundle=out/demo/export/bundle"

test: environment
	$(BIN)/python -m pytest $(SPREAD) $(CASES) $(TESTS)

# The slow tests: kills, a browser, many processes, whole runs, steps compiled for TPUs.
proof: compiler
	$(BIN)/python -m pytest -m slow $(SPREAD) $(CASES) $(TESTS)

# What wants an accelerator, in four minutes at most. With PYTHON that interpreter runs it, with the
# packages that it has: an image's JAX for its accelerator stays. `make device OPTIONS=--quick`.
device: $(if $(PYTHON),,environment)
	PYTHONPATH=. $(or $(PYTHON),$(BIN)/python) benchmarks/device.py $(OPTIONS)

# The documentation as a site in site/; its notebooks are run.
docs:
	@launch/environment.sh $(VENV) docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Make hands PYTHON on, from the command line as from the environment.
environment:
	@launch/environment.sh $(VENV) test

# Without a TPU libtpu grumbles whenever JAX starts: only who compiles for TPUs should have it.
compiler: environment
	@launch/environment.sh $(VENV) test,tpu

clean:
	rm -rf $(VENV) build site *.egg-info
