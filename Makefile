# `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
# A copy of the pipeline with params.demo.yaml as its params.yaml. Results of an earlier demo stay there, so
# that the next one runs only what has changed.
DEMO := .demo
# Models that run at a time. Small stages spend much of their time starting Python on one core, so the
# demo runs two.
JOBS =
# Stages run `python` and tests run `dvc` of the environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# DVC needs a user's name, which a container may lack.
USER ?= $(shell id -u)
export USER
READY := $(VENV)/.ready

.PHONY: help setup demo test coverage test-slow check lint types quick fast-tests repro experiments progress current torture bench

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Make .venv with the locked packages and the command cifarpipe

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Name another: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(VENV)/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(VENV)/bin/uv pip install --quiet --no-deps --no-build-isolation -e .
	$(VENV)/bin/cifarpipe plots-page
	@touch $@

demo: $(READY) ## Run the whole pipeline at laptop size in .demo/ and print the path of its report
	@mkdir -p $(DEMO)/.dvc $(DEMO)/data
	@rm -rf $(DEMO)/cifarpipe $(DEMO)/stages $(DEMO)/data/baselines $(DEMO)/.dvc/plots
	@cp -R cifarpipe stages .dvcignore $(DEMO)/
	@cp -R data/baselines data/dvc.yaml $(DEMO)/data/
	@cp -R .dvc/config .dvc/plots .dvc/plots_page_offline.html $(DEMO)/.dvc/
	@cp dvc.yaml $(DEMO)/dvc.yaml
	@cp params.demo.yaml $(DEMO)/params.yaml
	@printf '[core]\n    no_scm = true\n[plots]\n    html_template = plots_page_offline.html\n' \
		>$(DEMO)/.dvc/config.local  # git ignores the copy
	cd $(DEMO) && cifarpipe repro --jobs $(or $(JOBS),2)
	@echo; echo "The demo's report: $(CURDIR)/$(DEMO)/reports/index.html"

test: check ## Lint, types and all tests but the slow ones
	pytest -q -n 3 --dist loadfile -m "dvc or browser" $$(grep -rlE 'mark[.](dvc|browser)' tests --include='test_*.py')

coverage: $(READY) ## Run the tests of `make test` and list the lines they do not cover
	coverage erase
	COVERAGE_FILE="$(CURDIR)/.coverage" coverage run -m pytest -q -n 2 --dist loadfile -m "not slow"
	coverage combine --quiet
	coverage report

test-slow: $(READY) ## Run the slow tests, minutes each: every how-to, killed queues
	pytest -q -m slow

check: lint ## Lint, types and fast tests
	@$(MAKE) --no-print-directory -j 2 --output-sync=target types fast-tests

lint: $(READY)
	ruff format --check .
	ruff check .

types: $(READY)
	mypy

quick: $(READY) ## Run the tests that take a minute together, while you edit
	pytest -q -n 2 --dist loadfile -m "not dvc and not browser and not slow and not thorough"

fast-tests: $(READY)
	pytest -q -n 2 --dist loadfile -m "not dvc and not browser and not slow"

repro: $(READY) ## Run what has changed of the real pipeline (dvc repro); JOBS=4 runs four models at a time
	cifarpipe repro --jobs $(or $(JOBS),1)

# Columns of `dvc exp show` to leave out: dependencies, and all metrics but the accuracies.
PARAMETER := (data|train|models|evaluate|misclassified|gradcam|report)[.]
DROPPED := (Created|Executor|(stages|cifarpipe|artifacts|reports|data)/.*|(?!$(PARAMETER)).*[.](?!(val_)?accuracy$$)[^.]*)$$
ALL_BUT_PROGRESS := (?!(Experiment|State|.*[.](epoch|val_accuracy))$$).*

experiments: $(READY) ## Show experiments: changed parameters and accuracies
	@dvc exp show --md --only-changed --drop '$(DROPPED)'

progress: $(READY) ## Show experiments with the epoch that each training has reached
	@dvc exp show --md --drop '$(ALL_BUT_PROGRESS)'

current: $(READY) ## Check that dvc.lock is up to date
	@cifarpipe current

torture: $(READY) ## Test the pipeline against kills, full disks, damaged files and bad input (20 minutes)
	python -m benchmarks.torture

bench: $(READY) ## Measure speed against an ordinary PyTorch loop on this machine
	python -m benchmarks.bench
