# Every target sets up what it needs in .venv; all it takes is Python 3.11 or newer, git and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Processes that run the tests; tests/conftest.py says which tests stay together, and in which order.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-all faults fuzz golden check bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gansweep needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/gansweep launch search_spaces/quickstart.yaml --root runs

test: $(READY)
	$(PYTEST) -m 'not slow'

test-all: $(READY)
	$(PYTEST)

faults: $(READY)
	mkdir -p runs
	$(BIN)/python -m tests.faults runs/faults.jsonl

fuzz: $(READY)
	mkdir -p runs
	FUZZ_INPUTS=$${FUZZ_INPUTS:-1-3500} FUZZ_COMMAND=$${FUZZ_COMMAND:-1-40} $(BIN)/python -m tests.fuzz runs/fuzz.jsonl

golden: $(READY)
	$(BIN)/python -m tests.support.golden

bench: $(READY)
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python benchmarks/rung.py
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.orchestration

# Needs `dot` of graphviz, which only who changes the picture needs.
docs:
	dot -Tsvg docs/architecture.dot -o docs/architecture.svg

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
