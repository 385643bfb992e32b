# `make demo` and `make test` need nothing but Python 3.11 and make; they set up .venv when needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Most of a test's time is compilation, which takes one core: a process for each.
SPREAD := --numprocesses=auto --dist=worksteal

.PHONY: demo test proof lint clean

demo: $(VENV)/installed
	$(BIN)/dsirm run --gin_file=gin/runs/demo.gin --gin.MODEL_DIR="'out/demo'"
	$(BIN)/dsirm export --gin_file=out/demo/config.gin
	@echo "explore it: $(BIN)/dsirm serve --bundle=out/demo/export/bundle"

test: $(VENV)/installed
	$(BIN)/python -m pytest $(SPREAD)

# The slow tests: kills, a browser, many processes, whole runs, steps compiled for TPUs.
proof: $(VENV)/compiler
	$(BIN)/python -m pytest -m slow $(SPREAD)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: setup.py constraints.txt
	test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Without a TPU libtpu grumbles whenever JAX starts: only who compiles for TPUs should have it.
$(VENV)/compiler: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,tpu]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
