# Two commands do all the set-up: `make demo` runs the main job, `make test` the tests.
# Each makes the virtual environment that it needs; nothing but Python 3.11 to 3.13, pip and make
# has to be there.

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

# The first Python that is recent enough. PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null; then echo $$name; break; fi; done)

# An environment whose Python is gone, or that was moved here with its folder, is made anew.
ifneq ($(shell cat $(VENV)/.python 2>/dev/null; $(BIN)/python -c 'print("works")' 2>/dev/null),\
	$(CURDIR) works)
$(shell rm -f $(VENV)/.python)
endif

ATTRIBUTION := Imagery (c) OpenAerialMap contributors / HOTOSM, CC BY 4.0
SATELLITE_ATTRIBUTION := Contains modified Copernicus Sentinel data 2018

.PHONY: help demo demo-satellite test test-slow check format sample-model satellite-model benchmark benchmark-accuracy clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.run  ## Segment the sample scene into demo/: rasters, polygons, a picture
	@mkdir -p demo
	@# The empty corner of this mosaic is white, and no tag in the file says so.
	$(BIN)/geodinoseg segment sample_data/banepa_apply.tif --model sample_data/banepa.model --nodata 255 \
		-o demo/landcover.tif --confidence demo/confidence.tif \
		--polygons demo/polygons.gpkg --polygons demo/polygons.shp --overwrite
	$(BIN)/geodinoseg picture sample_data/banepa_apply.tif demo/landcover.tif \
		-o demo/landcover.png --caption "$(ATTRIBUTION)" --overwrite
	@echo
	@echo "Look at demo/landcover.png, or drag demo/landcover.tif and demo/polygons.gpkg into QGIS:"
	@echo "classes are named and coloured. demo/confidence.tif says how sure the model is."

demo-satellite: $(VENV)/.run  ## Segment nine bands of Sentinel-2 into demo/, with a model of that scene
	@mkdir -p demo
	$(BIN)/geodinoseg segment sample_data/lataseno_s2.tif --model sample_data/lataseno.model \
		-o demo/satellite.tif --confidence demo/satellite_confidence.tif \
		--polygons demo/satellite.gpkg --overwrite
	$(BIN)/geodinoseg picture sample_data/lataseno_s2.tif demo/satellite.tif --bands 3,2,1 \
		-o demo/satellite.png --caption "$(SATELLITE_ATTRIBUTION)" --overwrite
	@echo
	@echo "Look at demo/satellite.png, or drag demo/satellite.tif and demo/satellite.gpkg into QGIS."

# On all cores; each process starts with a stretch of the tests, so that fixtures are made once.
test: $(VENV)/.dev  ## Run the tests, without those marked slow
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(VENV)/.dev  ## Run the tests marked slow
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

check: $(VENV)/.dev  ## Check format, lint, types and the floors of the imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

sample-model: $(VENV)/.dev  ## Train sample_data/banepa.model anew and score it (about an hour)
	$(BIN)/python sample_data/make_sample_model.py

satellite-model: $(VENV)/.dev  ## Train sample_data/lataseno.model anew and score it (about three minutes)
	$(BIN)/python sample_data/make_satellite_model.py

benchmark: $(VENV)/.dev  ## Print the benchmark tables (about half an hour)
	$(BIN)/python tests/benchmarks/engine.py
	$(BIN)/python tests/benchmarks/parts.py
	$(BIN)/python tests/benchmarks/polygons.py
	$(BIN)/python tests/benchmarks/heads.py

benchmark-accuracy: $(VENV)/.dev  ## Print how right the maps are, beside a forest and a U-Net (about an hour)
	$(BIN)/python tests/benchmarks/accuracy.py -o accuracy

clean:  ## Remove the environment and the demo's outputs
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found; \
	name one: make PYTHON=/path/to/python"; exit 1; }
	@# Without ensurepip (Debian's python3-venv) the pip outside puts one inside.
	@$(PYTHON) -m venv --clear $(VENV) 2>/dev/null || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@echo '$(CURDIR)' > $@

$(VENV)/.run: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c $(CONSTRAINTS) -e ".[test,check]"
	@touch $(VENV)/.run $@
