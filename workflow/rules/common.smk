"""What all rules share: checked configuration, sample rows, and the parameters that decide what re-runs."""

import json
import os
import shlex
import sys
from pathlib import Path

# Beside this file, also where the workflow is a module of another one.
SOURCE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1] / "src"
if SOURCE.is_dir():
    sys.path.insert(0, str(SOURCE))

from snakemake.exceptions import WorkflowError

from nicheloop import sheet, warm
from nicheloop.datasets import downloads
from nicheloop.errors import UserError
from nicheloop.workflow import code_digest, job_environment, prepare, stage_config

try:
    SETTINGS, ROWS = prepare(config, "configuration")
except UserError as error:
    raise WorkflowError("\n".join(error.messages)) from None

ROW = {row["sample"]: row for row in ROWS}
SAMPLES = list(ROW)
DEMO = SETTINGS.samples == "demo" and not SETTINGS.dataset
DOWNLOADS = downloads(ROWS)

# Rules call the package's source directly, so a venv and --sdm conda behave alike.
_METHODS = {str(m) for m in workflow.deployment_settings.deployment_method}
_PATH = "" if _METHODS else f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
_SOURCE = f"export PYTHONPATH={shlex.quote(str(SOURCE))}; " if SOURCE.is_dir() else ""
_STRICT = "export NICHELOOP_STRICT=1; " if SETTINGS.strict else ""
_JOBS = job_environment(SETTINGS.results)
_EXPORTS = " ".join(f"{name}={shlex.quote(value)}" for name, value in _JOBS.items())
# A job sent elsewhere has memory and time of its own there, and starts alone.
_HERE = workflow.is_main_process and not _METHODS
_ALONE = "" if _HERE else f"unset {warm.ADDRESS}; "
# A job on a cluster reads this file again, with a command line of its own: the first one is handed on.
os.environ.setdefault("NICHELOOP_COMMAND", shlex.join(sys.argv))
shell.prefix(f"set -euo pipefail; {_PATH}{_SOURCE}{_STRICT}{_ALONE}export {_EXPORTS}; ")


wildcard_constraints:
    sample="|".join(re.escape(s) for s in SAMPLES),


def per_sample(name):
    """One file of every sample, in sheet order."""
    return [f"<results>/samples/{sample}/{name}" for sample in SAMPLES]


def lists(*names):
    """Options of a command for inputs of which every sample has one: the samples, and what their files are called.

    In full they are longer than the 128 kB that Linux allows the command of a shell where there are some hundred.
    """

    def options(wildcards, input):
        given = ["--samples", ",".join(SAMPLES)]
        for name in names:
            path = Path(getattr(input, name)[0])
            given += [f"--{name.replace('_', '-')}", str(path.parents[1] / "{sample}" / path.name)]
        return shlex.join(given)

    return options


def memory(per_input_mb=4, floor=1500):
    """Memory in MB: grows with the size of the inputs and with each attempt.

    The jobs of a group are asked before their inputs are there: the counts of a sample are then taken to be four times
    as large as the (compressed) files it is read from, which is about what ingest writes.
    """

    def mem_mb(wildcards, input, attempt):
        size = sum(input_size(path) for path in input if os.path.exists(path))
        if "sample" in wildcards.keys() and not all(os.path.exists(path) for path in input) and not DEMO:
            size += 4 * sum(input_size(path) for path in data_files(wildcards) if os.path.exists(path))
        return attempt * max(floor, int(floor / 2 + per_input_mb * size / 1e6))

    return mem_mb


def minutes(first):
    """Longest time in minutes: as much again with each attempt, so that a job that ran out of it comes back with more."""

    def runtime(wildcards, attempt):
        return attempt * first

    return runtime


def sections(*names):
    """JSON of the configuration sections, or single options, a rule reads."""
    return stage_config(SETTINGS, *names)


def input_size(path):
    """Size in bytes; of a download's receipt, each sample's share of the file it stands for."""
    folder, dataset, name = ("", "", "", *Path(str(path).removesuffix(".json")).parts)[-3:]
    if folder != "downloads" or (dataset, name) not in DOWNLOADS:
        return os.path.getsize(path)
    users = sum((dataset, name) in downloads([row]) for row in ROWS)
    with open(path, encoding="utf-8") as receipt:
        return json.load(receipt)["size"] / users


def data_files(wildcards):
    """Files a sample is read from; the demo's are written by the workflow itself, those of a data set are fetched."""
    if DEMO:
        folder = f"<results>/demo/{wildcards.sample}"
        return [f"{folder}/{part}" for part in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz")]
    row = ROW[wildcards.sample]
    if row.get("source"):
        return [f"<results>/downloads/{dataset}/{name}.json" for dataset, name in downloads([row])]
    return sheet.input_files(row["path"])


def raw_files(wildcards):
    """Files of the sample's unfiltered matrix, where the sheet names one."""
    raw = ROW[wildcards.sample].get("raw")
    return sheet.input_files(raw) if raw else []


def raw_option(wildcards):
    """Option that hands the unfiltered matrix to a stage."""
    raw = ROW[wildcards.sample].get("raw")
    return f"--raw {shlex.quote(raw)}" if raw else ""


def data_path(wildcards):
    """Path given to ingest."""
    if DEMO:
        return f"{SETTINGS.results}/demo/{wildcards.sample}"
    row = ROW[wildcards.sample]
    return f"{SETTINGS.results}/downloads" if row.get("source") else row["path"]


onstart:
    # To keep to its default of 100 starts a second Snakemake looks at all waiting jobs again every second, and once more
    # for every job that has ended: with thousands of jobs that takes a core of its own.
    rate = workflow.scheduling_settings.max_jobs_per_timespan
    if rate is not None and (rate.max_jobs, rate.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
    if _HERE and workflow.local_exec and warm.POSSIBLE and warm.ADDRESS not in os.environ:
        source = {"PYTHONPATH": str(SOURCE)} if SOURCE.is_dir() else {}
        try:
            os.environ[warm.ADDRESS], _ = warm.start({**os.environ, **_JOBS, **source})
        except OSError as error:
            print(f"nicheloop: jobs start one by one, half a second later each: {error}.", file=sys.stderr)


onerror:
    if workflow.is_main_process:
        given = [SETTINGS.samples] * (SETTINGS.samples != "demo") + [SETTINGS.dataset] * bool(SETTINGS.dataset)
        configfiles = "".join(f" --config {shlex.quote(str(path))}" for path in workflow.configfiles[-1:])
        print(
            f"\nnicheloop: not everything could be done. What was done is kept: mend the cause named above (logs: "
            f"{SETTINGS.results}/logs) and give the same command again.\nTo record the samples whose jobs failed as failed "
            "and report the rest:\n  nicheloop run "
            f"{shlex.join(given or ['demo'])} --out {shlex.quote(SETTINGS.results)}{configfiles} --keep-going",
            file=sys.stderr,
        )


# Chapters of the figures in Snakemake's own report, by what a figure's name begins with.
FIGURE_CHAPTERS = {
    "qc": "1 Quality",
    "maps": "2 Map",
    "composition": "3 Composition",
    "markers": "4 Annotation",
    "confidence": "4 Annotation",
    "malignancy": "5 Malignancy",
    "cnv": "5 Malignancy",
    "arm_checks": "5 Malignancy",
    "csc": "6 Cancer stem cells",
    "aldh": "6 Cancer stem cells",
    "tam": "7 Macrophages",
    "axes": "8 Crosstalk",
    "patients": "8 Crosstalk",
    "decoys": "8 Crosstalk",
    "loop": "9 Loop",
    "responses": "9 Loop",
    "coupling": "9 Loop",
    "strata": "10 Cohort",
    "enrichment": "11 Enrichment",
    "truth": "12 Demo truth",
}


def chapter_of(wildcards):
    name = wildcards.figure
    return next((c for start, c in FIGURE_CHAPTERS.items() if name.startswith(start)), "13 Other")


def figure_labels(wildcards):
    return {"figure": wildcards.figure.replace("_", " ")}
