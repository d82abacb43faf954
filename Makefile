# Everything runs in .venv, made from requirements.txt (pinned, with hashes).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test lint requirements clean

## Train, treat and measure the quickstart's organisms, and write its page.
sweep: .venv/installed
	$(BIN)/python -m jaxorg.sweep quickstart
	$(BIN)/python -m jaxorg.report results/quickstart-laptop

## All tests.
test: .venv/installed
	$(BIN)/python -m pytest -n 2

## Style and types.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Pin again what pyproject.toml asks for.
requirements:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev \
	  --no-header --no-annotate --quiet pyproject.toml -o requirements.txt

clean:
	rm -rf .venv results

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxorg needs Python 3.11 or later; run make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
