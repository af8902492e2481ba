# Everything runs in .venv, which bootstrap.py makes and keeps up to date; nothing is installed outside this folder.

PYTHON ?= python3
# ARGS goes to the command that is run: make run ARGS="--seed 2"   make test ARGS="-k parity"
ARGS ?=

.PHONY: help setup run test bench lint clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

# A phony target: bootstrap.py compares contents, so that a checkout that changes only file times installs nothing.
setup:  ## make or update .venv
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
	    if $$python -c "" >/dev/null 2>&1; then exec $$python bootstrap.py; fi; \
	done; echo "mgdcircuits needs Python 3.11 or newer and found no python3 on PATH: install it, or say" \
	    "make PYTHON=/path/to/python3." >&2; exit 1

run: setup  ## train Fashion-MNIST and draw the figure
	@.venv/bin/python experiments/fashion_mnist.py $(ARGS)

test: setup  ## ruff, then the tests on two processes
	.venv/bin/python -m ruff check .
	.venv/bin/python -m pytest -n 2 $(ARGS)

bench: setup  ## measure speed beside PyTorch, JAX and plain Brian2 (half an hour; ARGS="--quick")
	@.venv/bin/python benchmarks/run.py $(ARGS)

lint: setup  ## ruff and mypy
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

clean:  ## remove .venv and what tools left behind
	rm -rf .venv .bench-venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
