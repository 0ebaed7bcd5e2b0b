# make demo   align the built-in emoji generator and write a report: environment, training and report in one command
# make test   everything that must hold: lint, format, types, tests
# make docs   the documentation as a site, built strictly into site/
# make fix    mend what ruff can mend: lint and format
#
# All create the virtual environment .venv on the first call and reuse it afterwards.
# Another interpreter than the first of python3.11 ... python3.14, python3: make demo PYTHON=/path/to/python

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test docs fix clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make /make /p' Makefile

demo: $(VENV)/.installed
	$(BIN)/dipp train

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

# The site is built from the source alone: torch and the toolkit are not needed, and neither is a network.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "site/ is built. Read it with: $(BIN)/python -m http.server --directory site"

fix: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache site *.egg-info

$(VENV)/.created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "dipp-toolkit needs Python 3.11 or newer; found '$(PYTHON)'. Name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

# The stamps say that what pyproject.toml asks for is installed; while it does not change, nothing is installed again.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing dipp-toolkit and what it needs into $(VENV); torch alone may be gigabytes, but only once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Dependency groups need pip 25.1; a fresh environment of Python 3.11 brings an older one.
$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group test
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@
