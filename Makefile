# Every target first brings the environment up to date, which takes a moment when it is.
# Variables: ARGS (extra flags), TESTS (of `test`), RANKS (of `run` and `bench`), TENSORFLOW, PYTHON, MPICXX, GPU=1, CUDA_HOME (of `setup`).
.DEFAULT_GOAL := help
.PHONY: help setup run test test-faults test-wide test-loggers smoke test-cluster test-gpu-build test-image tour bench lint docs clean

RANKS ?= 2
ARGS ?=
TESTS ?= tests
SCRIPTS := $(wildcard launch/*.sh slurm/*.sh slurm/*.sbatch benchmarks/*.sh tests/*.sh tests/cluster/*.sh .ci/run)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## make .venv: Python packages, MPI, Horovod (GPU=1 for CUDA, PYTHON= and TENSORFLOW= to choose)
	@bash launch/setup.sh

run: setup  ## prepare Fashion-MNIST, then train the quickstart recipe on RANKS=2 ranks, with more flags in ARGS="..."
	@# Where it cannot be had, quickstart says so too and trains on digits.
	@.venv/bin/python -m ba_dist data prepare fashion_mnist || true
	@bash launch/mpirun.sh -n $(RANKS) -- train quickstart --multiplicity 2 --trace $(ARGS)

# Tests of one process on two cores at once, then those of several ranks: tests/conftest.py.
test: setup  ## run the tests, or those in TESTS="...", with more pytest flags in ARGS="..."
	.venv/bin/python -m pytest $(TESTS) -n 2 -m "not smoke and not faults and not wide" $(ARGS)

test-wide: setup  ## the same on up to six ranks, and for networks of texts (3 minutes)
	.venv/bin/python -m pytest tests/parallel -m "wide and not smoke" $(ARGS)

test-faults: setup  ## break runs on purpose, many times: kill, hang, corrupt, stop, go on (3 minutes)
	.venv/bin/python -m pytest tests -m faults $(ARGS)

# Set-up writes it where it makes the environment anew.
.venv/.setup-base: setup ;

# In a folder beside the environment, which a user's pip might leave without them, or with others.
.loggers/.made: requirements/loggers.txt requirements/constraints.txt .venv/.setup-base
	rm -rf .loggers
	.venv/bin/python -m pip install -q --target .loggers -c requirements/constraints.txt \
	  -c requirements/tensorflow-$$(sed -n 8p .venv/.setup-base).txt -r requirements/loggers.txt
	touch $@

test-loggers: .loggers/.made  ## the tests of W&B and MLflow, with both installed in .loggers
	PYTHONPATH=.loggers .venv/bin/python -m pytest tests/unit/test_loggers.py $(ARGS)

smoke: setup  ## run every recipe and benchmark for a few steps: does it run, does the loss fall? (6 minutes)
	.venv/bin/python -m pytest tests -m smoke $(ARGS)

# One folder a call, with a JSON file and a table of each benchmark, and all tables in tables.md.
BENCH := runs/bench-short-$(shell date +%Y%m%d-%H%M%S)

bench: setup  ## run short versions of the benchmarks; results in runs/bench-short-*
	.venv/bin/python benchmarks/order.py --output $(BENCH)/order.json
	.venv/bin/python benchmarks/group_io.py --multiplicities 2,4 --rounds 3 --seconds 1 --photos 512 \
	  --contenders replicate,broadcast,cooperative,tf.data,tf.data-service \
	  --output $(BENCH)/group_io.json
	.venv/bin/python benchmarks/group_io.py --ready --multiplicities 1,4 --rounds 3 --seconds 1 --photos 512 \
	  --contenders cooperative,tf.data --data-dir $(BENCH)/photos-tfrecord --output $(BENCH)/group_io_ready.json
	.venv/bin/python benchmarks/instances.py --trials 5 --output $(BENCH)/instances.json
	.venv/bin/python benchmarks/scaling.py --ranks 4 --compute-ms 300 --gradient-mb 1 \
	  --rounds 2 --steps 5 --warm-up 4 --output $(BENCH)/scaling.json
	bash launch/mpirun.sh -n $(RANKS) -- python benchmarks/throughput.py --batch-sizes 1,8 \
	  --trials 5 --warm-up 1 --baseline horovod --output $(BENCH)/throughput.json
	rm -rf $(BENCH)/photos-tfrecord
	cat $(BENCH)/*.md > $(BENCH)/tables.md

# Status 77 says that no cluster can be had here, and why; that is no failure.
test-cluster: setup  ## run the tests that need a Slurm cluster, on one made for them (root, Debian)
	@bash tests/cluster/run.sh $(ARGS) || [ $$? -eq 77 ]

test-gpu-build: setup  ## compile Horovod for CUDA and NCCL, without a GPU (5 minutes)
	@bash tests/gpu_build.sh

test-image:  ## run the steps of the Apptainer image in a bare Debian (root, Debian; 2 minutes)
	@bash tests/image.sh

tour: setup  ## do what a new user would, word by word as the docs have it (1 minute)
	@bash tests/tour.sh

lint: setup  ## check format, style, types and shell scripts
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy ba_dist
	.venv/bin/shellcheck -x $(SCRIPTS)

# An environment of its own: what builds the site wants a newer Python than what trains.
.venv-docs/.made: requirements/docs.txt | setup
	rm -rf .venv-docs
	.venv/bin/python -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q -r requirements/docs.txt
	touch $@

docs: .venv-docs/.made  ## build the documentation as a site into site/ (Python 3.11 or newer)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

clean:  ## remove .venv and what the tools leave behind; data, runs and kept wheels stay
	rm -rf .venv .venv-docs .venv.lock .loggers site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ba_dist tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
