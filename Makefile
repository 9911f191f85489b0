# make demo | test | check | bench | peers; everything is installed into .venv on the first call.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench fuzz peers clean
SHELL := /bin/bash

PYTHON ?=
# nproc would obey OMP_NUM_THREADS.
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)
PYTEST_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .venv-peers/.installed

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP) ## .venv with everything for work on this project

$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' scripts/setup.sh
	@touch $@

demo: $(STAMP) ## a small study from simulator to report
	@scripts/opengl.sh
	$(BIN)/mirror run spontaneous-alignment --quick --out out/demo
	@for file in report.html report.md result.json; do \
	  if [ -f out/demo/$$file ]; then echo "report: out/demo/$$file"; exit 0; fi; \
	done; echo "demo: no report in out/demo" >&2; exit 1

test: $(STAMP) ## the whole test suite
	@if scripts/opengl.sh; then marks=(); else marks=(-m 'not sim'); fi; set -x; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile "$${marks[@]}" $(PYTEST_ARGS)

check: $(STAMP) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_imports.py

bench: $(STAMP) $(PEERS) ## speed, beside matrix products and other packages
	@for file in benchmarks/*.py; do \
	  echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; \
	done

fuzz: $(STAMP) ## 10,000 damaged files of every format; FUZZ=200 for fewer; goes on where it stopped
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests:tests/episodes $(BIN)/python -W ignore -m scripts.fuzz

peers: $(PEERS) ## .venv-peers with the packages that benchmarks compare with

$(PEERS): benchmarks/peers.txt constraints.txt | $(STAMP)
	@$(BIN)/python -m venv .venv-peers && echo '*' >.venv-peers/.gitignore
	@echo "peers: installing benchmarks/peers.txt into .venv-peers" >&2
	@.venv-peers/bin/python -m pip --disable-pip-version-check install --quiet \
	  -c constraints.txt -r benchmarks/peers.txt </dev/null
	@touch $@

clean: ## removes what make made, .venv included
	rm -rf .venv .venv-peers out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
