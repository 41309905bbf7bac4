# Everything a developer runs. Needs only make and Python 3.11 or later; each target
# installs what it needs into an environment of its own and is quick the second time.

PYTHON ?= python3
APP    ?= asgi_app:app
HOST   ?= 127.0.0.1
PORT   ?= 8000
SERVER ?= hybridworker
JOBS   ?= 4
TESTS  ?= tests
CASES  ?= *
HTTP   ?= 1.1
ROUNDS ?= 3
SECONDS ?= 2

PYTHON2 ?= python2.7

VENV   := .venv
BIN    := $(VENV)/bin
OLDEST := .venv-oldest
BENCH  := .venv-bench
SUITE  := .venv-autobahn

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_WARN_SCRIPT_LOCATION := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help run test coverage test-oldest lint types format docs-check checklist compare autobahn bench profile clean

help:  ## Show this list
	@echo "make TARGET [NAME=VALUE ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s%s\n", $$1, $$2 }'

run: $(VENV)/.run  ## Serve an example on 127.0.0.1:8000 (APP=wsgi_app:app for the WSGI one; HOST, PORT)
	@exec $(BIN)/gunicorn -c examples/gunicorn.conf.py --chdir examples -b "$(HOST):$(PORT)" $(APP)

test: $(VENV)/.test  ## Run all tests (TESTS=tests/e2e for some; JOBS at once)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

coverage: $(VENV)/.test  ## Run all tests, which takes half as long again, and print the branch coverage
	@rm -f .coverage .coverage.*
	@status=0; $(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist loadfile $(TESTS) || status=$$?; \
	find . -maxdepth 1 -name '.coverage.*' -size 0 -delete; \
	$(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report; exit $$status

test-oldest: $(OLDEST)/.test  ## Run all tests on the lowest versions that pyproject.toml allows
	@$(OLDEST)/bin/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

lint: $(VENV)/.test  ## Look for mistakes (ruff), check the formatting and the README
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory docs-check

types: $(VENV)/.test  ## Check the types (mypy --strict)
	@$(BIN)/mypy

format: $(VENV)/.test  ## Format the code and sort the imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs-check: $(VENV)/.test  ## Render README.rst and CHANGELOG.rst; a warning is an error
	@for page in README.rst CHANGELOG.rst; do \
	  $(BIN)/python -m docutils --report=2 --halt=2 --writer=html5 $$page /dev/null || exit 1; \
	done
	@echo "README.rst and CHANGELOG.rst render without warnings"

checklist: $(BENCH)/.bench  ## Run the ASGI and PEP 3333 statements against a server (SERVER=hybridworker, uvicorn, ...)
	@exec $(BENCH)/bin/python -m tests.checklist $(SERVER)

compare: $(BENCH)/.bench  ## Try each feature of the README's table on this worker and its peers, a quarter of an hour (ROWS=... for some)
	@exec $(BENCH)/bin/python -m tests.compare run $(ROWS)

autobahn: $(VENV)/.test $(SUITE)/.suite  ## Run the Autobahn WebSocket suite, half an hour (CASES='1.* 9.*' for some, HTTP=2); needs PYTHON2=python2.7
	@set -f; $(BIN)/python -m tests.autobahn "$(PYTHON2)" $(SUITE) $(SUITE)/report $(HTTP) $(CASES)

bench: $(BENCH)/.bench  ## Measure this worker beside others, an hour (SCENARIO=... for some, RESUME=1, BASE=REV); needs wrk and h2load
	@set -f; exec $(BENCH)/bin/python -m tests.benchmarks run $(SCENARIO) --rounds $(ROUNDS) --seconds $(SECONDS) \
	  $(if $(RESUME),--resume) $(if $(BASE),--base "$(BASE)") $(if $(SERVERS),--servers "$(SERVERS)")

profile: $(BENCH)/.bench  ## Profile the worker alone under load (SCENARIO=...)
	@$(BENCH)/bin/python -m tests.benchmarks profile $(or $(SCENARIO),asgi-hello)

clean:  ## Remove the environments, caches and reports
	rm -rf $(VENV) $(OLDEST) $(BENCH) $(SUITE) build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- environments: a stamp file says what is installed, and is older than pyproject.toml when that has changed

%/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hybridworker needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@echo "Creating $* with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $*
	@touch $@

$(VENV)/.run: $(VENV)/.created pyproject.toml
	@echo "Installing hybridworker and the frameworks of the examples"
	@$(BIN)/pip install -qq --editable '.[websockets,http2,examples]'
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml
	@echo "Installing hybridworker and what its tests need"
	@$(BIN)/pip install -qq --editable '.[websockets,http2,examples,test]'
	@touch $(VENV)/.run $@

$(OLDEST)/.test: $(OLDEST)/.created pyproject.toml tests/lowest.py
	@echo "Installing the lowest versions of what hybridworker depends on"
	@$(OLDEST)/bin/python tests/lowest.py > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/pip install -qq --editable '.[websockets,http2,examples,test]' --constraint $(OLDEST)/constraints.txt
	@touch $@

$(BENCH)/.bench: $(BENCH)/.created pyproject.toml tests/benchmarks/requirements.txt
	@echo "Installing hybridworker and the servers it is compared with"
	@$(BENCH)/bin/pip install -qq --editable '.[websockets,http2,examples,test]' -r tests/benchmarks/requirements.txt
	@touch $@

# The suite needs Python 2.7. zope.interface is found through a .pth file, which is not read here; a package is.
$(SUITE)/.suite:
	@$(PYTHON2) -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null || { \
	  echo "The Autobahn suite runs on Python 2.7 only, and $(PYTHON2) is none." >&2; \
	  echo "Name one (pyenv install 2.7.18 builds it): make PYTHON2=$$HOME/.pyenv/versions/2.7.18/bin/python autobahn" >&2; exit 1; }
	@$(PYTHON2) -m pip --version >/dev/null 2>&1 || { \
	  echo "$(PYTHON2) has no pip, which installs the Autobahn suite: $(PYTHON2) -m ensurepip" >&2; exit 1; }
	@echo "Installing the Autobahn suite"
	@rm -rf $(SUITE)
	@$(PYTHON2) -W ignore -m pip install -qq --target $(SUITE) autobahntestsuite || { \
	  echo "Could not install autobahntestsuite: it needs a C compiler and the headers of OpenSSL and libffi." >&2; exit 1; }
	@touch $(SUITE)/zope/__init__.py $@

.SECONDARY:
