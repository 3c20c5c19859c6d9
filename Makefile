# `make demo` and `make test` do the whole set-up. They need Python ≥ 3.11 and nothing else;
# PYTHON=… names the interpreter to build .venv with.

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
# Where the set-up left off. The checksum is the folder's: a checkout that was copied or renamed
# is set up again, because a virtual environment holds its own path.
FOLDER := $(firstword $(shell pwd | cksum))
READY := $(VENV)/.ready-$(FOLDER)
# Which versions: `make test CONSTRAINTS=/dev/null` takes the newest of everything.
CONSTRAINTS := constraints.txt
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
ACTIVATE := $(if $(filter Windows_NT,$(OS)),$(VENV)\Scripts\activate,. $(VENV)/bin/activate)

.PHONY: help setup demo test soak fuzz graders bench notebooks notebooks-update lab site links lint clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1~/p' Makefile | awk -F'~' '{printf "%-14s %s\n", $$1, $$2}'

setup: $(READY)  ## .venv with everything in it, at the versions of constraints.txt
	@echo "Ready. To go on: $(ACTIVATE)"

demo: $(READY)  ## text from the bundled GPT-2
	@$(PY) -m gpt2 generate --prompt "ROMEO:" --max-new-tokens 200 --seed 1
	@echo; echo "Yours:   $(ACTIVATE)"
	@echo '         gpt2 generate --prompt "To be, or not to be" --temperature 0.8'
	@echo "Build it: problems/01-embeddings/README.md, then  pytest problems/01-embeddings"

test: $(READY)  ## everything that the maintainers' CI checks
	@$(PY) -c 'import platform, sys, torch; print("Python", platform.python_version(), "in", sys.prefix, "with torch", torch.__version__)'
	$(PY) -m learn_gpt2 swap --check --diff
	OMP_NUM_THREADS=1 $(PY) -m pytest -p xdist -n auto tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -p xdist -n auto problems --solutions

soak: $(READY)  ## minutes more: 50 kills at random moments, 1 GB prepared in 500 MB
	GPT2_SOAK=1 $(PY) -m pytest -s -m slow tests/gpt2/training/test_resume.py tests/gpt2/data/test_data.py

fuzz: $(READY)  ## 10,000 hostile inputs per parser; FUZZ="--seed 7" for others
	$(PY) -m tests.fuzz $(FUZZ)

graders: $(READY)  ## the banks of answers: caught, named, accepted; mixes of right ones
	$(PY) -m tests.graders.run

bench: $(READY)  ## speeds: generation with and without the KV cache, the learner's commands
	$(PY) -m gpt2 bench
	$(PY) -m learn_gpt2.upkeep.measuring

notebooks: $(VENV)/.notebooks-$(FOLDER)  ## run all notebooks: untouched skeletons, solutions, a mix of both
	$(PY) -m learn_gpt2.upkeep.notebooks run
	$(PY) -m pytest -q tests/learn_gpt2/upkeep

notebooks-update: $(VENV)/.notebooks-$(FOLDER)
	$(PY) -m learn_gpt2.upkeep.notebooks update

lab: $(VENV)/.notebooks-$(FOLDER)  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab problems

site: $(VENV)/.site-$(FOLDER)  ## READMEs, notebooks and docstrings as HTML, in build/site
	$(PY) -m sphinx -q -E -W --keep-going -c docs/site -d build/site-pages . build/site
	@echo "Open build/site/index.html"

links: $(READY)  ## ask every external link of the documents whether it still answers
	$(PY) -m tests.links

lint: $(VENV)/.lint-$(FOLDER)  ## ruff, the import order, types; the GitHub workflows' form and safety
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(PY) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github

clean:  ## remove .venv and caches; leaves every file you wrote
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find problems solutions src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Torch goes in first and by itself: it is the large download, and a build that is already there
# (chosen with PyTorch's own selector) is kept.
$(READY): pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null 2>&1 || { $(MAKE_VENV); }
	@if ls $(VENV)/.ready-* >/dev/null 2>&1 && [ ! -e $@ ]; then $(REPOINT); fi
	@echo "Installing PyTorch, at most once; it is the large one."
	$(PIP_INSTALL) $(or $(shell grep '^torch==' $(CONSTRAINTS)),torch)
	@echo "Installing the rest."
	$(PIP_INSTALL) --quiet -e ".[dev,plots]"
	@rm -f $(VENV)/.ready-* && touch $@
	@echo "Set up in $(VENV). To use gpt2, learn and pytest by name: $(ACTIVATE)"

# What the rest needs goes in where it is asked for: the extra of that name, as in .venv/.site-…
$(VENV)/.%-$(FOLDER): $(READY)
	@echo "Installing what [$*] in pyproject.toml names."
	$(PIP_INSTALL) --quiet -e ".[dev,plots,$*]"
	@touch $@

# The first interpreter that runs and is new enough; or what was found instead.
define MAKE_VENV
found=; \
for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
  version=$$($$python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null </dev/null) \
    || continue; \
  found="$$found $$python is $$version;"; \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
  echo "Creating $(VENV) with $$python ($$version)."; \
  $$python -m venv --clear $(VENV) && exit 0; \
  echo "$$python could not create $(VENV) (see above; on Debian and Ubuntu: apt install python3-venv)." >&2; \
  exit 1; \
done; \
echo "Python 3.11 or newer is needed. Found:$${found:- none;} to name another: make PYTHON=/path/to/python" >&2; \
exit 1
endef

define REPOINT
echo "This folder was copied or renamed: renewing the paths in $(VENV)."; \
$(PY) -m venv --without-pip $(VENV) && $(PIP_INSTALL) --quiet --force-reinstall --no-deps pytest
endef
