# Every target makes .venv when it is missing. `make install` is the only one that needs the network.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := steer policies critics robots sim
# Worker processes share the cores: one thread each.
export OMP_NUM_THREADS ?= 1

.PHONY: install test check format proto demo finetune-demo clean install-lerobot test-lerobot
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,sim,vla,jax,openpi,dev]'
	rm -rf steer_robotics.egg-info  # a copy of the entry points that would hide newer ones
	touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

# Goes on from the demo, whose checkpoints it makes when they are missing; a run that was stopped goes on.
finetune-demo: $(STAMP)
	test -f runs/demo/critic/config.json || $(BIN)/steer demo --out runs/demo
	$(BIN)/steer finetune --policy runs/demo/policy --critic runs/demo/critic --offline runs/demo/episodes \
		--out runs/finetune --episodes 900 --robot-minutes 19 $$(test ! -f runs/finetune/run.json || echo --resume)
	$(BIN)/steer curve runs/finetune

# LeRobot forbids the versions that we run with, so its policies have an environment of their own (no CUDA: 1.8 GB).
LEROBOT := .venv-lerobot

install-lerobot: $(LEROBOT)/.installed

$(LEROBOT)/.installed: constraints-lerobot.txt
	test -x $(LEROBOT)/bin/python || $(PYTHON) -m venv $(LEROBOT) || python3 -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install --quiet --upgrade pip setuptools -c constraints-lerobot.txt
	$(LEROBOT)/bin/python -m pip install --quiet torch -c constraints-lerobot.txt
	$(LEROBOT)/bin/python -m pip install --quiet --no-deps -r constraints-lerobot.txt
	$(LEROBOT)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

test-lerobot: $(STAMP) $(LEROBOT)/.installed
	$(BIN)/python -m pytest tests/lerobot
	$(BIN)/python -m tests.interop.lerobot_episode

# openpi-client wants an older numpy, so it has an environment of its own, with nothing of ours in it. It imports
# typing_extensions without asking for it.
OPENPI := .venv-openpi

$(OPENPI)/.installed:
	test -x $(OPENPI)/bin/python || $(PYTHON) -m venv $(OPENPI) || python3 -m venv $(OPENPI)
	$(OPENPI)/bin/python -m pip install --quiet openpi-client==0.1.2 'numpy<2' typing_extensions
	touch $@

.PHONY: test-openpi
test-openpi: $(STAMP) $(OPENPI)/.installed
	$(BIN)/python -m tests.interop.openpi_episode --client $(OPENPI)/bin/python

clean:
	rm -rf $(VENV) runs build *.egg-info
