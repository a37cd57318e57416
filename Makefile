# Two commands: `make quickstart` and `make test`. Each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
# A file of tests stays in one process, because its tests share trained models.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: help quickstart test test-slow lint structure docs format

help:
	@echo "make quickstart   set up, train the demo in two stages, evaluate, report"
	@echo "make test         set up and run the tests"
	@echo "make test-slow    the tests that take long"
	@echo "make lint         ruff, mypy, and mlinter on the three model files"
	@echo "make structure    print function lengths, dense expressions, import direction, words"
	@echo "make docs         build the documentation site into site/"
	@echo "make format       format the code, and fix what ruff can fix"

$(SETUP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

quickstart: $(SETUP)
	$(BIN)/python train_hf_e2e.py --config configs/quickstart.yaml --overwrite

test: $(SETUP)
	$(PYTEST)

test-slow: $(SETUP)
	$(PYTEST) -m slow

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/lint_hub_files.py

structure: $(SETUP)
	$(BIN)/python benchmarks/structure.py

docs: $(SETUP)
	$(BIN)/mkdocs build --strict

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
