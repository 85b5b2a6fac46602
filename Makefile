# make demo   set everything up, run the main job on the embedded photos, write site/index.html
# make test   set everything up, run the unit tests and every notebook
# make lab    set everything up, open JupyterLab on the notebooks
# make notebooks   rebuild and execute the committed notebooks from their text sources

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PHOTOS := data/photos/READY
NBMAKE := $(BIN)/python -m pytest -rp --no-header --nbmake --nbmake-timeout=900 -o testpaths=

# Containers often forbid compiled files; then each of many processes compiles torch and the others anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test lab notebooks lint clean
.DEFAULT_GOAL := demo

setup: $(READY)

# uv where it is there; else a private copy of it, so that no system Python is touched.
$(READY): pyproject.toml
	@set -e; \
	if command -v uv >/dev/null 2>&1; then uv=uv; else \
	  [ -x .uv/bin/uv ] || { $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv; }; uv=.uv/bin/uv; fi; \
	[ -x $(BIN)/python ] || $$uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	$$uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	@touch $@

$(PHOTOS): $(READY) data/photos.csv
	@$(BIN)/ckfr fetch photos
	@mkdir -p $(@D) && touch $@

demo: $(READY) $(PHOTOS)
	@$(BIN)/ckfr demo --out site

# Every part runs, whatever happened to the one before; the last line says what failed. Unit tests and notebooks
# run two at a time, with one thread each; the long notebooks stand last in the list and so begin first.
test: $(READY) $(PHOTOS)
	@failed=""; \
	part() { name=$$1; shift; echo "== $$name"; "$$@" || failed="$$failed$${failed:+, }$$name"; }; \
	part "style" $(BIN)/ruff check --quiet .; \
	part "format" $(BIN)/ruff format --check --quiet .; \
	part "imports" $(BIN)/lint-imports --no-cache --no-logo; \
	part "types" $(BIN)/mypy; \
	part "unit tests" env OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder; \
	part "notebooks" sh -c "ls -r notebooks/*.ipynb | OMP_NUM_THREADS=1 xargs -n 1 -P 2 $(NBMAKE)"; \
	if [ -n "$$failed" ]; then echo "make test failed: $$failed"; exit 1; fi

lab: $(READY) $(PHOTOS)
	@$(BIN)/jupyter lab notebooks

notebooks: $(READY) $(PHOTOS)
	@$(BIN)/python tools/notebooks.py build --execute

lint: $(READY)
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) .uv site .pytest_cache .ruff_cache
