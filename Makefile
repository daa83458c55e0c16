# Python >= 3.11, pip and make are enough: everything runs from .venv, which is made from requirements.lock.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EMBEDDED := $(VENV)/.embedded
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell $(name) -c \
	'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: setup up test check bench lock clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock $(EMBEDDED)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	@touch $@

# What `quotagate up` needs and no more, so that the first start is a quick one. A lock is complete: nothing to resolve.
$(EMBEDDED): requirements-embedded.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-embedded.lock
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

up: $(EMBEDDED)
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

# One set of versions in three sizes: all of it, what `quotagate up` needs, and what the image holds. ARGS=--upgrade
# moves to the newest.
lock: setup
	$(LOCK) --all-extras --output-file requirements.lock $(ARGS) pyproject.toml
	$(LOCK) --constraint requirements.lock --extra embedded --output-file requirements-embedded.lock $(ARGS) pyproject.toml
	$(LOCK) --constraint requirements.lock --output-file requirements-runtime.lock $(ARGS) pyproject.toml

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
