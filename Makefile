# `make demo` shows the main job, `make test` runs the tests; neither needs anything activated.
PYTHON ?= python3
VENV ?= .venv
SONG ?=
JOBS ?= 2
TESTS ?=
OUT ?= auralised
NETWORK ?=
PYTHONS ?= python3.11 python3.13

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint pytest docs installed install clean

demo: $(VENV)/.installed
	@$(BIN)/deconv-auralise --layer=5 --out=$(OUT) $(if $(NETWORK),--network=$(NETWORK)) $(if $(SONG),"$(SONG)")
	@echo
	@echo "Listen to the features and look at them, in a browser: $(abspath $(OUT))/index.html"

test: lint pytest

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v npx >/dev/null; then npx --yes oxlint@1.94.0 --deny-warnings deconv_jax/page/js tests/js; \
	else echo "no npx was found, so the page's scripts were not linted: install Node.js 20"; fi

pytest: $(VENV)/.tested
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

docs: $(VENV)/.documented
	@$(BIN)/python -m sphinx -b html -j $(JOBS) -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	@echo "Open it in a browser, it needs no server and no network: $(abspath docs/_build/html)/index.html"

installed:
	@for file in dist/*.whl dist/*.tar.gz; do for python in $(PYTHONS); do \
	  place=$$(mktemp -d) && $$python -m venv $$place && echo "== $$file, $$($$python -V)" && \
	  $$place/bin/python -m pip --disable-pip-version-check install --quiet $$file && \
	  (cd $$place && bin/deconv-auralise --network=list >/dev/null && \
	   bin/python -c 'import importlib.resources as r, deconv_jax as d; assert r.files(d).joinpath("py.typed").is_file(); d.load("real3")') && \
	  rm -rf $$place || exit 1; done; done

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"error: $(PYTHON) is Python {v[0]}.{v[1]}; needed is 3.11 to 3.13: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV) (two minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	@$(PIP) --editable '.[test,lint]'
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	@$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf docs/_build $(VENV) .pytest_cache .mypy_cache .ruff_cache
