# Every target makes .venv when it is missing. `make install` is the only one that needs the network.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := steer policies critics robots sim
# Two processes share two cores: one thread each. Large temporaries are kept instead of returned to the kernel and faulted
# in again, which costs up to a third of the time of small-network training (see docs/roadmap.md).
export OMP_NUM_THREADS ?= 1
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 8000000000
export MALLOC_TOP_PAD_ ?= 268435456

.PHONY: install test check format proto demo clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,sim,dev]'
	touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py
	$(BIN)/python -m steer.proto_check

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(STAMP)
	$(BIN)/steer demo --out runs/demo $(if $(FAST),--fast) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) runs build *.egg-info
