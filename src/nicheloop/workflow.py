"""What the Snakefile needs to know before a job starts: configuration, samples, and a digest of each stage's code."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from nicheloop import datasets, sheet
from nicheloop.config import Config, load_config
from nicheloop.errors import UserError

PACKAGE = Path(__file__).parent
# A change in these cannot change a stage's numbers: option values reach a rule as its own parameter.
NOT_DIGESTED = {
    "config", "config_cells", "config_malignancy", "config_niche", "config_options", "config_states",
    "errors", "cli", "workflow", "sheet", "warm", "__main__",
}  # fmt: skip


def job_environment(results: str) -> dict[str, str]:
    """Environment variables every job gets.

    One thread each: same bytes whatever the cores, and no oversubscription.  Compiled numba code is kept, so that only
    the first job pays for it.  glibc keeps freed blocks of up to 32 MB instead of handing them back: a tenth less time,
    no more memory.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    cache = os.environ.get("NUMBA_CACHE_DIR") or str(Path(results).absolute() / ".cache" / "numba")
    return {
        **threads, "NUMBA_CACHE_DIR": cache, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0",
        "MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**27),
    }  # fmt: skip


def prepare(values: dict[str, Any], source: str = "config.yaml") -> tuple[Config, list[dict[str, Any]]]:
    """Check configuration and sample sheet together.

    Returns
    -------
    The configuration and one row per sample (see `sheet.read_sheet`), those of `dataset` after those of the sheet; no
    file of a data set is looked at, so all of it is known before a download.

    Raises
    ------
    UserError
        With every problem of both.
    """
    problems: list[str] = []
    config = Config()
    try:
        config = load_config({k: v for k, v in values.items() if k != "pathvars"}, source)
    except UserError as err:
        problems += err.messages
    samples, dataset = values.get("samples", config.samples), values.get("dataset", config.dataset)
    rows: list[dict[str, Any]] = []
    if samples == "demo" and dataset:
        pass
    elif samples == "demo":
        from nicheloop import simulate

        rows = [complete(row) for row in simulate.sample_names(config.simulate)]
    elif isinstance(samples, str):
        try:
            rows = sheet.read_sheet(samples)
        except UserError as err:
            problems += err.messages
    if isinstance(dataset, str) and dataset.strip():
        try:
            rows += datasets.rows(dataset, config.download.catalogue)
        except UserError as err:
            problems += err.messages
    problems += _repeated(rows)
    if problems:
        raise UserError(problems)
    return config, rows


def _repeated(rows: list[dict[str, Any]]) -> list[str]:
    """One message for each sample name that stands twice: in the sheet and a data set, or in two data sets."""
    seen: dict[str, str] = {}
    said = []
    for row in rows:
        name, where = str(row["sample"]).lower(), row.get("dataset") or "the sample sheet"
        if name in seen:
            said.append(
                f"sample {row['sample']!r} of {where} has the name of one of {seen[name]}. Rename it in your sheet."
            )
        seen.setdefault(name, where)
    return said


def complete(row: dict[str, Any]) -> dict[str, Any]:
    """Fill a row up to all known columns."""
    out = {c: row.get(c) for c in sheet.KNOWN}
    kept = {"source": row["source"]} if row.get("source") else {}
    return {**out, "patient": out["patient"] or out["sample"], "extra": row.get("extra", {}), **kept}


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this package that a module imports, anywhere in its text."""
    path = PACKAGE / f"{module}.py"
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "nicheloop":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nicheloop."):
            names.add(str(node.module).split(".")[1])
    return frozenset(n for n in names if (PACKAGE / f"{n}.py").exists())


def modules_of(stage: str) -> list[str]:
    """A stage's module and all of the package it rests on, sorted."""
    found: set[str] = set()
    todo = [stage]
    while todo:
        module = todo.pop()
        if module not in found and module not in NOT_DIGESTED:
            found.add(module)
            todo.extend(_imports(module))
    return sorted(found)


@cache
def code_digest(stage: str) -> str:
    """Digest of the code and the shipped resources a stage runs on; it changes when, and only when, they do."""
    digest = hashlib.sha256()
    modules = modules_of(stage)
    files = [PACKAGE / f"{m}.py" for m in modules]
    if "resources" in modules:
        from nicheloop import resources

        text = "".join(p.read_text(encoding="utf-8") for p in files)
        shipped = resources.path("genes.tsv.gz").parent
        files += sorted(p for p in shipped.iterdir() if p.is_file() and p.suffix != ".py" and p.name in text)
    if stage == "report":
        files += sorted((PACKAGE / "templates").glob("*"))
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def stage_config(config: Config, *sections: str) -> str:
    """JSON of the named sections, or single options (``annotate.n_neighbors``), that a rule reads.

    It is the rule's parameter, so that an edit re-runs only the stages that read what was edited.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sections:
        section, _, option = name.partition(".")
        values = getattr(config, section).model_dump()
        found.setdefault(section, {}).update({option: values[option]} if option else values)
    return json.dumps(found, sort_keys=True)
