# calltrace's tasks. `make help` lists them.

CALLTRACE_CACHE ?= $(HOME)/.cache/calltrace
export CALLTRACE_CACHE
python := $(CALLTRACE_CACHE)/venv/bin/python
demo := build/demo.calltrace

.PHONY: help setup native demo test lint fuzz bench wheel clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian's packages, Python tools, Wine prefix, Windows Python, test programs
	tests/rig/setup.sh

native: setup ## build the native engine: host and Windows library, injected DLL
	$(MAKE) -C native -s -j2 all

demo: native ## trace a small bundled program and show what it did
	PYTHONPATH=core:tests $(python) -c 'from rig import targets; targets.build("demo")'
	./calltrace run -o $(demo) --clock tsc -- build/targets/demo.exe '2 * (3 + 4)' '7 / 2'
	./calltrace tree $(demo) --function 'demo!main' --function 'demo!climb' --depth 4
	./calltrace top $(demo) --limit 10
	./calltrace info $(demo)

lint: native ## check style, types and formatting
	$(python) -m ruff check core windbg_ext x64dbg_plugin native tests setup.py
	$(python) -m mypy --platform win32 core windbg_ext x64dbg_plugin native/hosting/start.py
	$(python) -m mypy --platform linux core/calltrace/wine.py
	$(MAKE) -C native -s check-format

test: lint ## everything continuous integration does: set up, build, lint, run all tests
	$(python) -m pytest

fuzz: native ## 20,000 mutated traces, images and program files, and 10,000 random programs (half an hour)
	$(MAKE) -C native -s -j2 asan
	$(python) tests/fuzz/run.py

bench: native ## measure the reader, recording, starting it in WinDbg, and how well functions are found
	for script in tests/bench/*.py; do $(python) $$script || exit; done

wheel: native ## a wheel with the built libraries, in dist/
	rm -rf build/python
	$(python) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove everything built here; the cache stays
	$(MAKE) -C native -s clean
	rm -rf dist *.egg-info core/*.egg-info .mypy_cache .ruff_cache .pytest_cache
