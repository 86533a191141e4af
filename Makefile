# Everything starts from python3 and a clone: the first target that needs packages makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO := demo-output

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of packages; it is renewed when pyproject.toml changes.
$(VENV)/.ready-%: pyproject.toml | $(BIN)/python
	$(PIP) install --upgrade pip
	$(PIP) install --editable '.[$*]'
	@touch $@

demo: $(VENV)/.ready-all ## Normalize the arrays of sample_data/ into demo-output/
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh sample_data/demo.sh $(DEMO)

test: $(VENV)/.ready-test ## Run the tests (a few minutes)
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(VENV)/.ready-frameworks ## Run every test, the slow proofs and the frameworks too
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.ready-check ## Format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -n auto

format: $(VENV)/.ready-check ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready-bench ## Measure speed and memory beside what people use today
	$(BIN)/python -m tests.benchmarks

clean: ## Remove what was made here
	rm -rf $(VENV) $(DEMO) bench-data .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
