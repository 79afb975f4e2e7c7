# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all check format bench reproduce clean

# Dependencies are installed with pip: it takes a CPU wheel of torch where it finds one (constraints.txt pins it).
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# No defense beside RelaxLoss on handwritten digits, a data set that ships with scikit-learn.
demo: .venv/installed
	$(BIN)/relaxloss compare --data digits --defenses none,relaxloss:alpha=0.5 --seeds 0,1,2,3,4 --out runs/demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/installed-dev
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done
	$(BIN)/python scripts/fill_docs.py

# Hours: every experiment under results/ whose data is at hand, resumable; then the tables of README.md and docs/.
# `make reproduce ARGS=--list` shows what there is and what it costs.
reproduce: .venv/installed-dev
	$(BIN)/python scripts/reproduce.py $(ARGS)

clean:
	rm -rf .venv runs build dist src/*.egg-info
