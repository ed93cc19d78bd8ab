# Every target makes .venv when it is missing. `make install` is the only one that needs the network.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := steer policies critics robots sim
# Worker processes share the cores: one thread each.
export OMP_NUM_THREADS ?= 1

.PHONY: install test check format proto demo clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,sim,vla,jax,openpi,dev]'
	touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py
	.ci/proto --check

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(STAMP)
	.ci/proto

demo: $(STAMP)
	$(BIN)/steer demo --out runs/demo $(if $(FAST),--fast) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) runs build *.egg-info
