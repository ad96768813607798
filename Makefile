# make run     sets everything up and runs the main recipe   (RUN_ARGS="--help" tells what it takes)
# make test    sets everything up and runs the tests         (TEST_ARGS="-k units" picks some;
#              two at a time: most of a test is compilation, which uses one core)
# make lint    checks style and format

PYTHON ?= python3
BIN := .venv/bin
# Says that the environment is up to date with setup.py: nothing is installed twice, and whoever
# has run one target once can run all of them offline.
INSTALLED := .venv/.installed

.PHONY: run test lint

run: $(INSTALLED)
	$(BIN)/python recipes/dbn_mnist.py $(RUN_ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Editable: after a plain install, Python started in this folder finds ./dbn but not dbn.layers.
$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + \
	  ". Name another one: make PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable ".[test]"
	@touch $@
