# Two commands: `make quickstart` and `make test`. Each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed

.PHONY: help quickstart test lint format

help:
	@echo "make quickstart   set up, train the demo in two stages, evaluate, report"
	@echo "make test         set up and run the tests"
	@echo "make lint         ruff, and mlinter on the two files that travel to the Hub"
	@echo "make format       let ruff mend what it can"

$(SETUP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

quickstart: $(SETUP)
	$(BIN)/python train_hf_e2e.py --config configs/quickstart.yaml --overwrite

test: $(SETUP)
	$(BIN)/python -m pytest

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/lint_hub_files.py

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
