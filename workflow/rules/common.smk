"""What all rules share: checked configuration, sample rows, and the parameters that decide what re-runs."""

import json
import os
import sys
from pathlib import Path

SOURCE = Path(workflow.basedir) / "src"
if SOURCE.is_dir():
    sys.path.insert(0, str(SOURCE))

from snakemake.exceptions import WorkflowError

from nicheloop import sheet
from nicheloop.errors import UserError
from nicheloop.workflow import code_digest, prepare, stage_config

try:
    SETTINGS, ROWS = prepare(config, "configuration")
except UserError as error:
    raise WorkflowError("\n".join(error.messages)) from None

ROW = {row["sample"]: row for row in ROWS}
SAMPLES = list(ROW)
DEMO = SETTINGS.samples == "demo"

# Rules call the package's source directly, so a venv and --sdm conda behave alike.  One thread each: same bytes
# whatever the cores, and no oversubscription.  Compiled numba code is kept, so that only the first job pays for it.
_METHODS = {str(m) for m in workflow.deployment_settings.deployment_method}
_PATH = "" if _METHODS else f'export PATH="{Path(sys.executable).parent}:$PATH"; '
_SOURCE = f'export PYTHONPATH="{SOURCE}"; ' if SOURCE.is_dir() else ""
_CACHE = os.path.abspath(os.path.join(SETTINGS.results, ".cache", "numba"))
shell.prefix(
    f"set -euo pipefail; {_PATH}{_SOURCE}export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"
    f' NUMBA_NUM_THREADS=1 MPLBACKEND=Agg PYTHONHASHSEED=0 NUMBA_CACHE_DIR="{_CACHE}"; '
)


wildcard_constraints:
    sample="|".join(re.escape(s) for s in SAMPLES),


def per_sample(name):
    """One file of every sample, in sheet order."""
    return [f"<results>/samples/{sample}/{name}" for sample in SAMPLES]


def memory(per_input_mb=4, floor=1500):
    """Memory in MB: grows with the size of the inputs and with each attempt."""

    def mem_mb(wildcards, input, attempt):
        size_mb = sum(os.path.getsize(path) for path in input) / 1e6
        return attempt * max(floor, int(floor / 2 + per_input_mb * size_mb))

    return mem_mb


def sections(*names):
    """JSON of the configuration sections a rule reads."""
    return stage_config(SETTINGS, *names)


def data_files(wildcards):
    """Files a sample is read from; the demo's are written by the workflow itself."""
    if DEMO:
        folder = f"<results>/demo/{wildcards.sample}"
        return [f"{folder}/{part}" for part in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz")]
    return sheet.input_files(ROW[wildcards.sample]["path"])


def data_path(wildcards):
    """Path given to ingest."""
    if DEMO:
        return f"{SETTINGS.results}/demo/{wildcards.sample}"
    return ROW[wildcards.sample]["path"]
