# The course in one command: `make lab`. Without make (Windows): docs/running.md.

PYTHON ?= python3
PORT ?= 8888
DECK ?= seeing
# Where torch and torchvision come from; both from one place, or they do not fit together. Empty: as pip is set up.
# On Linux without a GPU, the address of torch's CPU index (pytorch.org, Get started) saves gigabytes.
TORCH_INDEX ?=

# The Python that everything runs in, and the file that says it is complete.
VENV := .venv/bin/python
READY := .venv/ready
SITE_READY := .venv/site-ready
LECTURE_READY := .venv/lecture-ready
SITE := build/site
# What the demo on the website is served from, and the npm package that runs its network.
DEMO := $(SITE)/static/demo/settings.json
RUNTIME := build/npm/node_modules/onnxruntime-web/dist
# Tests run in several processes; how many is decided in conftest.py.
PYTEST := $(VENV) -m pytest -n auto
# JupyterLab refuses to start as root, which containers are, unless told to.
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help lab check lecture handout quick lint test package-tests notebook-tests portable bench notebooks site site-test clean

help:           ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

lab: $(READY)   ## open the course in JupyterLab (PORT=8888, ARGS="--no-browser …")
	JUPYTER_CONFIG_PATH=tools/jupyter $(VENV) -m jupyterlab --ServerApp.root_dir=. --port=$(PORT) $(ROOT) $(ARGS) notebooks/00_start_here.ipynb

check: $(READY) ## say in words whether everything works here, and what to do where it does not
	@$(VENV) tools/check.py

lecture: $(LECTURE_READY) ## open the slides of a lecture in JupyterLab (DECK=doubting)
	JUPYTER_CONFIG_PATH=tools/jupyter $(VENV) -m jupyterlab --ServerApp.root_dir=. --port=$(PORT) $(ROOT) \
		--LabApp.app_settings_dir=lectures/settings $(ARGS) lectures/$(DECK).ipynb

handout: $(LECTURE_READY) ## print the decks as PDFs, with and without notes (needs Chromium or Chrome)
	$(VENV) lectures/handout.py

quick: lint     ## check what is quickly checked: lint, rules for notebooks, most tests of the package
	$(PYTEST) -m "not slow" tests

test: lint package-tests notebook-tests ## prove that everything works: lint, unit tests, every notebook

lint: $(READY)
	$(VENV) -m ruff check .

package-tests: $(READY)
	$(PYTEST) tests

notebook-tests: $(READY)
	$(PYTEST) notebooks lectures

portable: $(READY) ## run notebooks as another processor would (NB="09 11": these, SETTINGS=A, B or AB)
	$(VENV) tools/portable.py $(NB) $(if $(SETTINGS),--settings $(SETTINGS))

bench: $(READY) ## measure speed and memory
	$(VENV) -m benchmarks

notebooks: $(READY) ## run all notebooks and store their outputs and pictures (NB=06: this one and its solutions)
	$(VENV) tools/execute_notebooks.py $(NB)

site: $(SITE_READY) $(DEMO) ## build the course as a website from the stored outputs, to be read without a kernel
	$(VENV) -m sphinx -q -W --keep-going -c site -d $(SITE)/doctrees . $(SITE)/html
	@echo "The site: $(SITE)/html/index.html"

site-test: site ## look at every page of the website in a browser
	$(VENV) -m pytest site

clean:          ## remove what make made: the environment and caches
	rm -rf .venv build .pytest_cache .ruff_cache *.egg-info
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# Made once, and again only when the dependencies change.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 10) and \
		"The course needs Python 3.10 or newer; $(PYTHON) is " + v + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(VENV) -m pip install --index-url $(TORCH_INDEX) torch torchvision)
	$(VENV) -m pip install --editable '.[test]'
	@touch $@

$(LECTURE_READY): $(READY)
	$(VENV) -m pip install --editable '.[test,lecture]'
	@touch $@

$(SITE_READY): $(READY)
	$(VENV) -m pip install --editable '.[test,site]'
	@touch $@

$(DEMO): $(SITE_READY) $(RUNTIME) $(wildcard site/demo/* course_utils/weights/* input_images/*)
	$(VENV) site/demo/export.py $(RUNTIME) $(@D)

# With the npm of the extra `site`; pip has put it beside Python.
$(RUNTIME): site/demo/package.json site/demo/package-lock.json | $(SITE_READY)
	mkdir -p build/npm && cp $^ build/npm
	cd build/npm && PATH="$(CURDIR)/.venv/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund
	@touch $@
