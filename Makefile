# Python >= 3.11, pip and make are enough: everything runs from .venv, which is made from requirements.lock.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell $(name) -c \
	'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: setup up test check bench lock clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Debian keeps the venv module in a package of its own; where it is missing, virtualenv does the same and pip can fetch it.
.PHONY: $(VENV)
$(VENV):
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		echo "This Python has no venv module: using virtualenv instead"; \
		builder=$$(mktemp -d); \
		$(PYTHON) -m pip install --quiet --target "$$builder" virtualenv \
			&& PYTHONPATH="$$builder" $(PYTHON) -m virtualenv --quiet --clear $(VENV); \
		made=$$?; rm -rf "$$builder"; exit $$made; }

up: setup
	@$(BIN)/quotagate up $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m bench $(ARGS)

# The image installs the second file: the same versions without the extras. ARGS=--upgrade moves to the newest.
lock: setup
	$(LOCK) --all-extras --output-file requirements.lock $(ARGS) pyproject.toml
	$(LOCK) --constraint requirements.lock --output-file requirements-runtime.lock $(ARGS) pyproject.toml

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
