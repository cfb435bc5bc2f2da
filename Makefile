.PHONY: demo test lint bench
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

$(INSTALLED): pyproject.toml
	@echo "installing into .venv; PyTorch takes about two minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## digits to a report: train, latents, SVM, pictures
	$(BIN)/vaekit train --config docs/digits.yaml --run runs/digits
	$(BIN)/vaekit latents runs/digits
	$(BIN)/vaekit svm runs/digits --C 30 --gamma 0.25
	$(BIN)/vaekit report runs/digits

test: $(INSTALLED)  ## the whole suite
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict vaekit export

bench: $(INSTALLED)  ## throughput
	$(BIN)/python -m pytest bench/
