.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_LOGGING_LEVEL ?= WARNING
PORT ?= 5000

.PHONY: help run ui server test test-slow test-all check docs bench screenshots gallery

help: ## list these
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/installed ## the whole experiment on scanned digits, in minutes
	mlflow run . --env-manager local

ui: .venv/installed ## the MLflow UI on http://127.0.0.1:5000 (PORT=...)
	@echo "Runs, in the layout for training: http://127.0.0.1:$(PORT)/#/experiments/0/runs?workflowType=machine_learning"
	PYTHONWARNINGS=ignore mlflow ui --host 127.0.0.1 --port $(PORT) --no-serve-artifacts --workers 1

server: .venv/installed ## a team's server for a trial, on loopback: PostgreSQL, and MLflow with a login (PORT=...)
	python -m deploy --port $(PORT)

test: .venv/installed ## the tests, minutes
	python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: .venv/installed ## the tests that take longer
	python -m pytest -m slow --log-cli-level=INFO

test-all: .venv/installed ## the tests with Python 3.11, 3.12 and 3.13, from the lock file
	nox

check: .venv/installed docs ## lint, format, types and documentation
	ruff check .
	ruff format --check .
	mypy

docs: .venv/installed ## the documentation, in site/ (read it with: python -m http.server --directory site)
	python -m reference pages
	zensical build --clean --strict
	python -m reference check

bench: .venv/installed ## speed beside other ways to train, half an hour on a quiet machine
	python -m benchmarks

screenshots: .venv/installed ## pictures of the UI and of a report, from the store here, in Chromium (OF="experiment sweep", run ids)
	python -m pictures.screenshots $(OF)

gallery: .venv/installed ## docs/gallery.md, with a picture of every experiment (CIFAR10=folder GIVEN="name=value ...")
	python -m pictures.gallery $(CIFAR10) $(GIVEN)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (PyTorch is several GB: minutes)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
