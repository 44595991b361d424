# Every target makes what it needs in .venv by itself; the second time that takes no time.

# The clone's own LIBERO configuration: the one in the user's home may point into another environment.
export LIBERO_CONFIG_PATH ?= $(CURDIR)/.venv/libero
export MUJOCO_GL ?= egl
# Two threads on two cores spin while they wait for a core that another process has: 6 to 17 times as slow.
export OMP_NUM_THREADS ?= 1

# Made last, so that a setup that failed is tried again. After moving the clone: rm -rf .venv
READY := .venv/ready

.PHONY: help demo test test-slow gpu-check lint docs setup

help:
	@echo "make demo       collect demonstrations, train the tiny GEM-VLA, evaluate it in LIBERO: outputs/demo/"
	@echo "make test       the default test suite: what to run before each commit"
	@echo "make test-slow  the rest: simulator, LeRobot's commands, long trainings"
	@echo "make gpu-check  on a CUDA device, at most 8 minutes: what fits and how fast it is, into results/gpu/"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make docs       the pages as a site: outputs/site/"
	@echo "make setup      only make .venv ready"

demo: $(READY)
	.venv/bin/python examples/demo.py

test: $(READY)
	.venv/bin/python -m pytest -n 2 --dist loadfile

test-slow: $(READY)
	.venv/bin/python -m pytest -m "slow or libero" -n 2 --dist loadfile

# Other sizes: make gpu-check GPU_CHECK="--batch_size=4 --depth_batch_size=8"
gpu-check: $(READY)
	.venv/bin/python benchmarks/gpu_check.py $(GPU_CHECK)

lint: $(READY)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# Material says in each build that MkDocs 2 is coming.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

setup: $(READY)

$(READY): pyproject.toml tools/bootstrap.sh
	tools/bootstrap.sh
	touch $@
