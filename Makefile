# Two commands on a fresh machine: `make train` and `make test`. Both are quick once .venv is there.
# `make test-all` also runs the long matrices, the tests marked `long`.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
XDIST ?= 2

.PHONY: train test test-all test-hydra-next lint types clean

train: .venv/installed
	.venv/bin/python train.py $(ARGS)

test: .venv/installed-test lint types
	.venv/bin/python -m pytest -n $(XDIST) $(ARGS)

test-all: .venv/installed-test lint types
	.venv/bin/python -m pytest -n $(XDIST) -m "" $(ARGS)

# Opt-in: what the next release of Hydra would break. Its pre-release is installed in front of the packages of .venv.
NEXT = .venv-hydra-next
test-hydra-next: .venv/installed-test
	$(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --pre "hydra-core>=1.4.0rc0"
	.venv/bin/python -c "import sys; print('$(CURDIR)/src', *(p for p in sys.path if p.endswith('-packages')), sep='\n')" \
		> "$$($(NEXT)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/behind.pth"
	$(NEXT)/bin/python -c "import hydra, omegaconf; print('Hydra', hydra.__version__, 'OmegaConf', omegaconf.__version__)"
	$(NEXT)/bin/python -m pytest -W default tests/cli/test_hydra_next.py $(ARGS)

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
	rm -rf .venv $(NEXT)
