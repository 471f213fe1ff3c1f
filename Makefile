# Needs Python 3.11 or later, git and make; everything else goes into .venv.
# Paths are relative and quoted where needed, so a checkout below a directory with blanks works.

PYTHON ?= python3
UV_VERSION := 0.13.9
# Passed on to pytest (test, coverage), the demo or the benchmark: make demo ARGS="--seconds 20"
ARGS ?=

PY := .venv/bin/python
# An environment that is active in the caller's shell must not be the one that is changed or run.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH UV_PROJECT_ENVIRONMENT UV_PYTHON PIP_TARGET PIP_PREFIX PIP_USER
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test heavy pictures check format lint types imports lua coverage compile clean-compiled bench schema build clean
.PHONY: audit fresh-core faults fuzz interop interop-pins docs sbom deploy-tools deploy-check deploy-cluster deploy-files
# Where `make sbom` writes
SBOM ?= dist/session-aggregator.cdx.json

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

install: .venv/.installed ## Python packages, locked, into .venv

.venv/.installed: pyproject.toml uv.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), needed is 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { \
	  echo "can't make .venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -m uv --version 2>/dev/null | grep -qF 'uv $(UV_VERSION)' || { \
	  echo "installing uv $(UV_VERSION) into .venv"; \
	  $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null; \
	  $(PY) -m pip install --quiet 'uv==$(UV_VERSION)'; }
	@echo "installing the locked packages into .venv"
	@# Inexact: uv itself is not in the lock and must stay.
	@$(PY) -m uv sync --frozen --inexact --quiet --python $(PY)
	@touch $@

demo: install ## broker, Redis, worker and traffic, all embedded; ends with Ctrl-C
	@$(PY) -m aggregator demo $(ARGS)

# Most tests wait most of the time.
BY_TWO := --numprocesses 2 --dist worksteal

# A choice of them is run by one process, which is quicker to start; or by two: ARGS='$(BY_TWO) tests/core'
test: install fresh-core ## the tests, on the real servers that this machine has
	@$(PY) -m pytest $(or $(ARGS),$(BY_TWO))

heavy: install fresh-core ## tests with a browser, with 100,000 sessions, with made-up requests
	@$(PY) -m pytest -m heavy $(ARGS)

pictures: install fresh-core ## the README's pictures, made anew by the browser from the demo's traffic
	@PICTURES=1 $(PY) -m pytest -m heavy tests/heavy/test_browser.py -k pictures $(ARGS)

interop: install fresh-core ## real producers through Collector, Kafka and worker, against what the APIs charged
	@$(PY) -m tests.interop.collector
	@$(PY) -m pytest -m interop tests/interop $(ARGS)

interop-pins: install ## the newest versions of the producers, into tests/interop/environments
	@for group in tests/interop/environments/*.in; do \
	  $(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
	    --no-emit-index-url "$$group" -o "$${group%.in}.txt"; done

docs: install ## what is generated in documents: settings, events, code blocks, the skill's references, the README's coverage table
	@$(PY) -m tests.docs.generated

# FAULTS_MINUTES, FAULTS_SEED and more: tests/faults/__main__.py
faults: install fresh-core ## breaks everything on purpose: each fault alone, then mixed ones by seeded schedules
	@$(PY) -m tests.faults

# FUZZ_SECONDS; atheris is not in the lock, since it has no wheel for every Python that the rest runs on
fuzz: install clean-compiled ## the decoder against the official parser, coverage-guided
	@test -d .cache/fuzzer/atheris || $(PY) -m uv pip install --quiet --python $(PY) --target .cache/fuzzer -r tests/fuzz/requirements.txt
	@PYTHONPATH=.cache/fuzzer $(PY) -m tests.fuzz

check: lint types imports lua test ## what CI looks at first

format: install ## rewrite files as ruff wants them
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lint: install
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: install
	$(PY) -m mypy

imports: install
	.venv/bin/lint-imports

lua:
	@if command -v luacheck >/dev/null; then luacheck aggregator/adapters/redis/lua; \
	elif [ -n "$$REQUIRE_SERVERS" ]; then echo "luacheck is missing: apt-get install lua-check" >&2; exit 1; \
	else echo "luacheck is not installed, Lua is not checked (apt-get install lua-check)"; fi

coverage: install fresh-core ## the tests with branch coverage; the core must be covered whole
	@rm -f .coverage .coverage.*
	@$(PY) -m coverage run -m pytest $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report --skip-covered --show-missing
	@$(PY) -m coverage report --include='aggregator/core/*' --fail-under=100 >/dev/null || { \
	  echo "aggregator/core is not covered whole" >&2; exit 1; }

compile: install clean-compiled ## compile aggregator/core in place; takes a C compiler
	@SESSION_AGGREGATOR_COMPILE=require $(PY) setup.py --quiet build_ext --inplace
	@rm -rf build
	@$(PY) -c 'from aggregator.telemetry import core_flavour; print("aggregator.core is", core_flavour())'

clean-compiled: ## back to the interpreted core
	@rm -rf build
	@rm -f aggregator/core/*.so

# A compiled module hides its source: edits would seem to have no effect.
fresh-core:
	@so=$$(ls aggregator/core/native__mypyc*.so 2>/dev/null | head -n 1); \
	if [ -n "$$so" ] && [ -n "$$(find aggregator/core -name '*.py' -newer "$$so")" ]; then \
	  echo "aggregator/core was edited after it was compiled: make compile, or make clean-compiled" >&2; exit 1; fi

bench: install ## CPU per span by stage, on real servers
	@$(PY) -m bench $(ARGS)

schema: install ## write the summary's JSON Schema anew
	@$(PY) -m aggregator.summary

build: install ## sdist and wheel into dist/
	@rm -rf dist
	@mkdir dist
	@$(PY) -m uv export --quiet --frozen --only-group build --output-file dist/build-constraints.txt
	@$(PY) -m uv build --quiet --python $(PY) --out-dir dist --build-constraints dist/build-constraints.txt
	@rm dist/build-constraints.txt

sbom: install ## what the image is made of, as CycloneDX, from the lock
	@mkdir -p "$(dir $(SBOM))"
	@$(PY) -m uv export --quiet --frozen --no-dev --extra web --extra tracing --no-emit-project \
	  | $(PY) -W ignore::UserWarning -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --output-file "$(SBOM)" -

# No part of `check`, which must not depend on a database elsewhere; where that can't be reached it says so in one line.
audit: install ## known vulnerabilities of the locked packages, by osv.dev; REQUIRE_AUDIT=1 where it must be reached
	@said=$$($(PY) -m uv audit --preview-features audit-command --frozen --no-default-groups $(ARGS) 2>&1) && code=0 || code=$$?; \
	if [ $$code -eq 2 ] && [ -z "$$REQUIRE_AUDIT" ] && echo "$$said" | grep -qF 'client error (Connect)'; then \
	  echo "NOT AUDITED: the database of vulnerabilities (osv.dev) can't be reached from here"; \
	else echo "$$said"; exit $$code; fi

deploy-tools: install ## Helm, kubeconform, an API server and schemas, built into .cache; ten minutes, once
	@$(PY) -m tests.deploy.programs

deploy-check: install deploy-tools ## image, chart, manifests, rules and dashboards, on the real programs
	@$(PY) -m pytest tests/deploy $(ARGS)

deploy-files: install ## write anew what follows from others in deploy/: schema, manifests, dashboards
	@$(PY) -m deploy.generate "$$($(PY) -m tests.deploy.programs helm)"

deploy-cluster: install deploy-tools ## only the chart on a real Kubernetes API server
	@$(PY) -m pytest tests/deploy/test_cluster.py $(ARGS)

clean: clean-compiled ## remove all that was made here
	@rm -rf .venv dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage* *.egg-info
