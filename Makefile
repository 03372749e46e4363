# The verbs of the project.  `make demo` and `make test` work on a machine with only python3 (3.11+), make and git.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL_DATA ?= $(or $(NICHELOOP_REAL_DATA),data/real)
# Modules are kept compiled in our own environment, whatever the caller set: else each of hundreds of processes compiles
# them again, 0.8 s every time.
export PYTHONDONTWRITEBYTECODE :=
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --rerun-incomplete --show-failed-logs

.DEFAULT_GOAL := help
.PHONY: help env demo test test-faults test-cluster validate validate-full dry-run lint format types report real screenshot lock generate clean bench-cnv bench-crosstalk bench-scoring bench-report bench bench-peer bench-usual bench-slow bench-overheads bench-growth bench-million bench-tools

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@echo "[1/3] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@echo "[2/3] packages from requirements.lock"
	@$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --no-config --quiet requirements.lock || $(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock
	@echo "[3/3] nicheloop itself"
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

env: $(READY)  ## build the environment in .venv from the lock

demo: $(READY)  ## run the whole workflow on the embedded demo cohort
	@$(SNAKEMAKE) --quiet rules host
	@echo; echo "The report is ready: $(CURDIR)/results/report.html"

test: $(READY)  ## the whole test suite
	@$(BIN)/python -m pytest -q -n $(CORES) --dist loadgroup

validate: $(READY)  ## measure what the answers are worth: docs/validation.md (at most 30 minutes; SECTION=cells for one)
	@NICHELOOP_REAL_DATA="$(REAL_DATA)" $(BIN)/python -m benchmarks.validation $(if $(SECTION),--section $(SECTION))

validate-full: $(READY)  ## the same with the long grids
	@NICHELOOP_REAL_DATA="$(REAL_DATA)" $(BIN)/python -m benchmarks.validation --full $(if $(SECTION),--section $(SECTION))

test-faults: $(READY)  ## bad input, kills, full disks; renews docs/reliability.md
	@$(BIN)/python -m pytest -q -m "faults or faults_long" --junitxml=.pytest_cache/faults.xml; code=$$?; \
	  $(BIN)/python tests/reliability.py .pytest_cache/faults.xml; exit $$code

test-cluster: $(READY)  ## a real SLURM on this machine (apt-get install slurm-wlm munge slurmdbd mariadb-server); renews docs/reliability.md
	@$(BIN)/python -m pytest -q -m "cluster or not cluster" tests/cluster --junitxml=.pytest_cache/cluster.xml; code=$$?; \
	  $(BIN)/python tests/reliability.py .pytest_cache/cluster.xml; exit $$code

dry-run: $(READY)  ## check configuration, samples and rules; runs nothing, needs no data
	@$(BIN)/snakemake --cores $(CORES) --dry-run --quiet rules --config results=results-dry-run

lint: $(READY)  ## lint, format and type checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/snakefmt --check --line-length 120 Snakefile workflow
	@$(BIN)/mypy
	@$(BIN)/codespell src tests docs README.md CHANGELOG.md CONTRIBUTING.md workflow Snakefile Makefile
	@$(BIN)/snakemake --lint --config results=results-dry-run

format: $(READY)  ## format everything
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/snakefmt --line-length 120 Snakefile workflow

report: $(READY)  ## Snakemake's own report of the last run: report.zip
	@$(BIN)/snakemake --report report.zip && echo "Written: $(CURDIR)/report.zip"

real: $(READY)  ## five real samples, from NICHELOOP_REAL_DATA (or data/real), to results-real/report.html
	@$(BIN)/python tests/real_cohort.py "$(REAL_DATA)" results-real
	@$(SNAKEMAKE) --quiet rules host --config samples=results-real/samples.tsv results=results-real
	@echo; echo "The report is ready: $(CURDIR)/results-real/report.html"

bench: bench-usual bench-slow bench-peer bench-overheads bench-growth  ## all of them, then docs/benchmarks.md (hours: SIZES=10000 for the smallest)
	@$(BIN)/python -m benchmarks.page

bench-tools: $(READY)
	@test -x benchmarks/.venv/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python benchmarks/.venv
	@$(BIN)/uv pip install --quiet --python benchmarks/.venv/bin/python --requirement benchmarks/requirements-peer.txt

bench-peer: bench-tools  ## the whole workflow beside scanpy, scrublet, harmony, infercnvpy and liana (SIZES="10000 50000")
	@$(BIN)/python -m benchmarks.peer --cores $(CORES) $(if $(SIZES),--sizes $(SIZES))

bench-usual: bench-tools  ## QC to clusters and map beside scanpy and scranpy (CELLS=50000)
	@$(BIN)/python -m benchmarks.usual --cores $(CORES) $(if $(CELLS),--cells $(CELLS))

bench-slow: bench-tools  ## doublets, neighbours, copy number, reading: each beside the usual call
	@$(BIN)/python -m benchmarks.slow --cores $(CORES) $(if $(PARTS),--parts $(PARTS))

bench-overheads: $(READY)  ## planning 500 samples, a run with nothing to do, the start of each job
	@$(BIN)/python -m benchmarks.overheads --cores $(CORES)

bench-growth: $(READY)  ## time and memory per rule from 10,000 to 300,000 cells (SIZES="10000 30000")
	@$(BIN)/python -m benchmarks.growth --cores $(CORES) $(if $(SIZES),--sizes $(SIZES))

bench-million: $(READY)  ## a million cells once, without the atlas file (an hour with the simulation, 22 GB of disk)
	@$(BIN)/python -m benchmarks.growth --cores $(CORES) --sizes 1000000 --without atlas.h5ad

bench-cnv: $(READY)  ## copy-number profiles beside infercnvpy, 5,000 cells
	@$(BIN)/python benchmarks/bench_cnv.py

bench-crosstalk: $(READY)  ## the ligand-receptor screen beside liana, squidpy, FastCCC (QUICK=--quick: 10,000 cells only)
	@test -x benchmarks/.venv/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python benchmarks/.venv
	@$(BIN)/uv pip install --quiet --python benchmarks/.venv/bin/python --requirement benchmarks/requirements-crosstalk.txt
	@$(BIN)/python benchmarks/bench_crosstalk.py $(QUICK) --cores $(CORES) --tools benchmarks/.venv/bin/python \
	  --cellphonedb "$(REAL_DATA)/reference/cellphonedb_v5"

bench-scoring: $(READY)  ## gene-set scores beside decoupler, pyucell and scanpy, 10,000 cells x 20,000 genes x 20 sets
	@test -x benchmarks/.venv/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python benchmarks/.venv
	@$(BIN)/uv pip install --quiet --python benchmarks/.venv/bin/python --requirement benchmarks/requirements-scoring.txt
	@$(BIN)/python benchmarks/bench_scoring.py --cores $(CORES) --tools benchmarks/.venv/bin/python

bench-report: $(READY)  ## the report of a made-up cohort of 100,000 cells in Chromium: size, first paint, first colour change
	@$(BIN)/python benchmarks/bench_report.py

screenshot: $(READY)  ## pictures of results/report.html for README and docs (needs chromium)
	@$(BIN)/python benchmarks/screenshots.py results/report.html docs/images

generate: $(READY)  ## write config.yaml, its schema and docs/outputs.md from the code
	@$(BIN)/nicheloop config --write . && $(BIN)/nicheloop outputs --write .

lock: $(READY)  ## renew requirements.lock and environment.yml from pyproject.toml
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --extra slurm pyproject.toml --output-file requirements.lock --quiet
	@$(BIN)/python .ci/environment.py

clean:  ## remove results, not the environment
	@rm -rf results results-real results-dry-run report.zip
