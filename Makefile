.PHONY: demo test lint stubs fuzz bench clean

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# One virtual environment for all; made again when the dependencies change.
$(VENV)/.made: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.made
	$(RUN) examples/hierarchical_attention.py

test: lint
	$(RUN) -m pytest --numprocesses=auto --dist=loadgroup

lint: $(VENV)/.made
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m basedpyright

# For type checkers: what the table of ops makes at run time.
stubs: $(VENV)/.made
	$(RUN) tests/stubs.py

# Ten minutes of damaged files; what is found is kept in build/fuzz.
fuzz: $(VENV)/.made
	$(RUN) tests/fuzzing.py --minutes 10

# What Alphorn is measured beside, in an environment of its own.
PEERS := .peers
$(PEERS)/.made:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet keras tensorflow-cpu torch
	touch $@

bench: $(VENV)/.made $(PEERS)/.made
	$(RUN) -m benchmarks --peers $(PEERS)/bin/python --write docs

clean:
	rm -rf $(VENV) $(PEERS) build dist
