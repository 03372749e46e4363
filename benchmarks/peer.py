"""The whole workflow beside what a user would write today (`peer_script`), on the same simulated cohorts, in turn.

    make bench-peer                   10,000, 50,000 and 100,000 cells
    make bench-peer SIZES=10000       one size

Wall time and peak memory of each process tree (ours with Snakemake, byte code on disk, compiled kernels not), and what
the answers are worth against the truth.  Sizes measured earlier stay in benchmarks/results/peer.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import cohort, planted, process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "peer.json"
TOOLS = ROOT / "benchmarks" / ".venv" / "bin" / "python"
PACKAGES = ("scanpy", "anndata", "harmonypy", "infercnvpy", "liana", "numpy", "scipy")
N_PERMUTATIONS = 1000


def knowledge(path: Path) -> None:
    """Write the markers, signatures and gene positions both sides use."""
    from nicheloop import genes

    table = genes.table().dropna(subset=["chromosome", "start", "end"])
    positions = {
        "gene": table.index.tolist(), "chromosome": table["chromosome"].tolist(),
        "start": table["start"].astype(int).tolist(), "end": table["end"].astype(int).tolist(),
    }  # fmt: skip
    value = {
        "markers": {n: list(m.positive) for n, m in genes.markers("major").items()},
        "signatures": {n: list(s.genes) for n, s in genes.signatures().items()},
        "positions": positions,
    }
    path.write_text(json.dumps(value))


def quality(cells: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Macro-F1 of types and balanced accuracy of malignancy over the cells a tool kept; single intact cells only.

    `cells`: ``cell_id``, ``cell_type`` and ``malignant``.  Unresolved or unassigned counts as wrong.
    """
    real = truth[~truth["doublet"].astype(bool) & ~truth["damaged"].astype(bool)].set_index("cell_id")
    both = cells.set_index("cell_id").join(real[["cell_type", "malignant"]], how="inner", rsuffix="_true")
    f1 = []
    for kind in both["cell_type_true"].unique():
        told, true = both["cell_type"] == kind, both["cell_type_true"] == kind
        f1.append(2 * (told & true).sum() / max(told.sum() + true.sum(), 1))
    said, true = both["malignant"].astype(bool), both["malignant_true"].astype(bool)
    balanced = (said[true].mean() + (~said[~true]).mean()) / 2
    return {
        "cells_kept": len(cells), "types_macro_f1": round(float(np.mean(f1)), 4),
        "malignant_balanced_accuracy": round(float(balanced), 4),
    }  # fmt: skip


def ours(sheet: Path, out: Path, cores: int, resource: str) -> dict[str, Any]:
    """Run the whole workflow with the screen; measured, with the time of each rule."""
    from nicheloop import io

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    config = out / "bench.yaml"
    config.write_text(
        f"screen:\n  resource: {resource}\n  method: cellphonedb\n  min_cells: 5\n  n_permutations: {N_PERMUTATIONS}\n"
    )
    command = [sys.executable, "-m", "nicheloop", "run", sheet, "--out", out, "--cores", cores, "--config", config]
    found = process.with_jobs(process.run_tree(command, out / "bench.log", cores=cores), out)
    types = io.read_table(out / "cohort" / "cell_types.parquet", columns=["cell_id", "cell_type"])
    calls = pd.concat([
        io.read_table(p, columns=["cell_id", "malignancy"]) for p in sorted(out.glob("samples/*/malignancy.parquet"))
    ])  # fmt: skip
    cells = types.merge(calls, on="cell_id", how="left")
    cells["malignant"] = (cells["malignancy"] == "malignant").fillna(False)
    cells[["cell_id", "cell_type", "malignant"]].to_csv(out / "bench_cells.tsv.gz", sep="\t", index=False)
    clock: dict[str, float] = {}
    for job in process.usage(out):
        clock[job["rule"]] = clock.get(job["rule"], 0.0) + job["seconds"]
    return {**found, "steps": {k: round(v, 1) for k, v in sorted(clock.items(), key=lambda kv: -kv[1])}}


def measure(n: int, work: Path, cores: int, resource: str) -> dict[str, Any]:
    """Both sides on one cohort."""
    sheet = cohort.write_cohort(work / f"cohort_{n}", cells=n, cores=cores)
    truth = pd.read_csv(work / f"cohort_{n}" / "truth_cells.tsv.gz", sep="\t", keep_default_na=False, dtype=str)
    truth[["doublet", "damaged", "malignant"]] = truth[["doublet", "damaged", "malignant"]] == "True"
    knowledge(work / "knowledge.json")
    plans = cohort.plans(cohort.PATIENTS)
    state = process.machine(cores)
    mine = ours(sheet, work / f"ours_{n}", cores, resource)
    mine["quality"] = quality(pd.read_csv(work / f"ours_{n}" / "bench_cells.tsv.gz", sep="\t"), truth)
    mine["quality"].update(planted.ours(work / f"ours_{n}", plans))
    peer_out = work / f"peer_{n}"
    command = [TOOLS, ROOT / "benchmarks" / "peer_script.py", sheet, work / "knowledge.json", peer_out]
    threads = {k: str(cores) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    theirs = process.run_tree(command, work / f"peer_{n}.log", cores=cores, environment=threads)
    theirs["quality"] = quality(pd.read_csv(peer_out / "cells.tsv.gz", sep="\t"), truth)
    theirs["quality"].update(planted.theirs(peer_out / "ligand_receptor.tsv.gz", plans))
    theirs["steps"] = json.loads((peer_out / "clock.json").read_text())
    return {
        "cells": n, "samples": cohort.PATIENTS, "time_ratio": round(theirs["seconds"] / mine["seconds"], 2),
        "cpu_ratio": round(theirs["cpu_seconds"] / mine["cpu_seconds"], 2),
        "memory_ratio": round(mine["peak_mb"] / theirs["peak_mb"], 3), "load_before": state["load_before"],
        "code": state["code"],
        "ours": mine, "peer": theirs,
    }  # fmt: skip


def main() -> None:
    """Measure the sizes asked for and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench")
    parser.add_argument("--resource", default="liana")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    before = json.loads(OUT.read_text())["rows"] if OUT.exists() else []
    rows = {row["cells"]: row for row in before}
    for n in args.sizes:
        rows[n] = measure(n, args.work, args.cores, args.resource)
        result = {
            "command": "make bench-peer", "machine": process.machine(args.cores),
            "versions": process.versions(TOOLS, PACKAGES), "rows": [rows[k] for k in sorted(rows)],
        }  # fmt: skip
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps({k: v for k, v in rows[n].items() if k not in ("ours", "peer")}))


if __name__ == "__main__":
    main()
