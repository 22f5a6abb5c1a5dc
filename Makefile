# HDNet Lab. `make help` lists the commands.
PYTHON ?= python3
PROFILE ?= ci
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MINI := $(or $(HDNET_DATA),data)/mini/manifest.csv
RECIPES := $(wildcard hdnet_lib/composites/*.py hdnet_lib/composites/*.json) hdnet_lib/data/decode.py hdnet_lib/data/images.py hdnet_lib/data/masks.py hdnet_lib/utils/regions.py
# Tests run side by side, in processes of one thread each: processes of two threads wait for one another.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
# JupyterLab takes 10 MB in one message, and a photo that a student uploads is one.
LARGE_PHOTOS := --ServerApp.tornado_settings='{"websocket_max_message_size": 104857600}'
# One set of parameters for every notebook: make report PROFILE=paper DATA=/path/to/iHarmony4
REPORT_OPTIONS := --profile $(PROFILE) $(if $(DATA),-p data_root "$(DATA)") $(if $(PARTIAL),-p partial True)

.DEFAULT_GOAL := help
.PHONY: help report test coverage test-fast test-browser lint lab data docs notebooks figures clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

report: $(READY) $(MINI)  ## run every notebook and write reports/index.html
	$(BIN)/python -m hdnet_lib.course.report $(REPORT_OPTIONS)

test: lint $(MINI)  ## check style, run the tests, compare the notebooks' outputs
	$(PYTEST)
	$(PYTEST) --nbval -p no:cacheprovider --nbval-current-env notebooks

coverage: $(READY) $(MINI)  ## which lines the tests run; slower than the tests alone
	$(PYTEST) --cov=hdnet_lib --cov-report=term

test-fast: $(READY) $(MINI)  ## run the tests that need neither notebooks nor long trainings
	$(PYTEST) -m "not slow"

test-browser: $(READY) $(MINI)  ## drive the widgets and the report's pages in Chromium, which has to be installed
	NEED_BROWSER=1 $(BIN)/python -m pytest tests/test_browser.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lab: $(READY) $(MINI)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab $(LARGE_PHOTOS) $(LAB_OPTIONS) notebooks

data: $(MINI)  ## build the mini data set (data/mini)

docs: $(READY)  ## build the documentation as a site, reports/docs/index.html
	$(BIN)/sphinx-build -W -q -b html -c docs . reports/docs

notebooks: $(READY) $(MINI)  ## copy the exercises from their solutions, run all notebooks, refresh their outputs
	$(BIN)/python data_scripts/refresh_notebooks.py

figures: $(READY) $(MINI)  ## draw the pictures of figures/ anew, those of the notebooks included
	$(BIN)/python data_scripts/make_figures.py
	$(BIN)/python data_scripts/make_diagrams.py
	$(BIN)/python -m hdnet_lib.course.report $(REPORT_OPTIONS) -p figures_dir figures

clean:  ## delete what the other commands made, the environment included
	rm -rf $(VENV) data reports .coverage

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("HDNet Lab needs Python 3.11 or newer; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[notebooks,export,heif,sweep,docs,test]"
	@touch $@

$(MINI): $(READY) $(RECIPES)
	$(BIN)/python -m hdnet_lib.composites.mini
