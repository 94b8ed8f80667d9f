# Two commands on a fresh machine: `make train` and `make test`. Both are quick once .venv is there.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
XDIST ?= 2

.PHONY: train test lint types clean

train: .venv/installed
	.venv/bin/python train.py $(ARGS)

test: .venv/installed-test lint types
	.venv/bin/python -m pytest -n $(XDIST) $(ARGS)

lint: .venv/installed-test
	.venv/bin/ruff check .

types: .venv/installed-test
	.venv/bin/mypy

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'microstep needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing microstep into .venv: the first time takes some minutes and about 6 GB, mostly PyTorch"
	$(PIP) --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) --editable ".[test]"
	touch $@

clean:
	rm -rf .venv
