# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo web wheel test test-fast check docs format applications benchmarks clean

# The stamp changes when the metadata does, and only then is anything installed again.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test,lint,docs,onnx]"
	touch $@

# MediaPipe runs what was exported. It needs absl-py 2 and TF-MOT needs absl-py 1, so it has a
# virtual environment of its own, in which nothing of ours is.
$(VENV)/mediapipe/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/mediapipe
	$(VENV)/mediapipe/bin/python -m pip install --quiet "mediapipe >=1.2,<2"
	touch $@

# The page of `kerasopt serve` runs on LiteRT.js, which npm hands over; what it is is pinned there.
kerasopt/serving/litert_js/VERSION: kerasopt/_litert_js.py
	$(MAKE) $(VENV)/.installed
	$(BIN)/kerasopt serve --install
	touch $@

web: kerasopt/serving/litert_js/VERSION

# Whoever installs this wheel has the page, and needs neither npm nor a network.
wheel: web $(VENV)/.installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

demo: $(VENV)/.installed
	$(BIN)/kerasopt demo

test: $(VENV)/.installed-dev $(VENV)/mediapipe/.installed
	$(MAKE) web || echo "no LiteRT.js: the tests of its page skip"
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -n 2 -m slow

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs serve

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Hours on a slow machine; what was recorded with the same versions is not run again.
applications: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/applications.py

clean:
	rm -rf $(VENV) site build dist *.egg-info kerasopt/serving/litert_js
