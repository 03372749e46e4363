"""The stages that cost most when written by hand, ours beside the usual call: each pair on the same input, in turn.

    make bench-slow

Doublets and reading on one sample of 8,205 cells, neighbours and copy-number profiles on 50,000 cells.  Each side is a
process of its own: seconds of the whole process (Python's start, imports and compilation included) and of the call, and
peak memory.  Writes benchmarks/results/slow.json; what is the same in both answers stands there too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bench_cnv, cohort, process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "slow.json"
PEERS = ROOT / "benchmarks" / ".venv" / "bin" / "python"
SCRIPT = ROOT / "benchmarks" / "slow_tools.py"
SAMPLE, MANY, COMPONENTS = 8205, 50_000, 30
PARTS = {
    "reading": ("scanpy.read_10x_mtx", "share of equal counts"),
    "doublets": ("scanpy.pp.scrublet", "AUROC against the simulator's doublets: ours, theirs"),
    "neighbours": ("scanpy.pp.neighbors", "share of the exact 15 nearest found: ours, theirs"),
    "neighbours and graph": ("scanpy.pp.neighbors", "share of their edges that ours has"),
    "copy number": ("infercnvpy.tl.infercnv", "share of equal values, 200 cells"),
}


def inputs(work: Path) -> dict[str, Path]:
    """Write one sample's 10x folder, its h5ad, components of many cells and log values at real gene positions."""
    import anndata as ad
    from scipy.io import mmread

    sample = work / f"one_{SAMPLE}"
    cohort.write_cohort(sample, cells=SAMPLE, samples=1)
    h5ad = sample / "plain.h5ad"
    if not h5ad.exists():
        ad.AnnData(mmread(sample / "p001" / "matrix.mtx.gz").T.tocsr().astype(np.float32)).write_h5ad(h5ad)
    points = work / "points.npy"
    rng = np.random.default_rng(0)
    np.save(points, rng.normal(0, 4, (20, COMPONENTS))[rng.integers(0, 20, MANY)] + rng.normal(size=(MANY, COMPONENTS)))
    logs = work / "logs.h5ad"
    if not logs.exists():
        bench_cnv.simulate(logs, MANY, 20_000)
    return {"reading": sample / "p001", "doublets": h5ad, "neighbours": points, "neighbours and graph": points,
            "copy number": logs}  # fmt: skip


def agreement(part: str, ours: Path, theirs: Path, data: dict[str, Path]) -> Any:
    """What both answers share, as `PARTS` words it."""
    import pandas as pd
    from scipy.sparse import load_npz
    from sklearn.metrics import roc_auc_score

    if part in ("reading", "neighbours and graph"):
        a, b = load_npz(ours).tocsr(), load_npz(theirs).tocsr()
        if part == "reading":
            return float(1 - (a != b).nnz / b.nnz)
        return round(float((a > 0).multiply(b > 0).nnz / b.nnz), 4)
    a, b = np.load(ours), np.load(theirs)
    if part == "doublets":
        truth = pd.read_csv(data["reading"] / "truth.tsv.gz", sep="\t")["doublet"].astype(bool)
        return [round(float(roc_auc_score(truth, v)), 4) for v in (a, b)]
    if part == "neighbours":
        x = np.load(data[part])
        some = np.arange(0, MANY, 100)
        square = (x[some] ** 2).sum(axis=1)[:, None] + (x**2).sum(axis=1) - 2 * x[some] @ x.T
        exact = np.argsort(square, axis=1)[:, 1:15]  # scanpy counts the cell itself among its 15
        return [
            round(float(np.mean([np.isin(e, v[i]).mean() for e, i in zip(exact, some, strict=True)])), 4)
            for v in (a, b)
        ]
    return round(float(np.isclose(a, b, atol=1e-5).mean()), 4)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench")
    parser.add_argument("--parts", nargs="+", default=list(PARTS))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data = inputs(args.work)
    found: dict[str, Any] = json.loads(OUT.read_text())["parts"] if OUT.exists() else {}
    before = process.machine(args.cores)
    threads = {k: str(args.cores) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    for part in args.parts:
        out = args.work / "slow"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        row: dict[str, Any] = {"usual": PARTS[part][0]}
        for side, python in (("ours", sys.executable), ("theirs", PEERS)):
            environment = {**threads, "NUMBA_CACHE_DIR": os.fspath(args.work / "numba")}
            if side == "ours":
                environment["PYTHONPATH"] = str(ROOT / "src")
            command = [python, SCRIPT, side, part, data[part], out / side, args.cores]
            row[side] = process.run_tree(command, args.work / "slow.log", cores=args.cores, environment=environment)
            row[side] |= json.loads((out / f"{side}.json").read_text())
        name = next(out.glob("ours.np*")).suffix
        row["agreement"] = agreement(part, out / f"ours{name}", out / f"theirs{name}", data)
        row["agreement_is"] = PARTS[part][1]
        for key, figure in (("time", "seconds"), ("call", "call_seconds"), ("memory", "peak_mb")):
            row[f"{key}_ratio"] = round(row["theirs"][figure] / max(row["ours"][figure], 0.01), 2)
        found[part] = row
        print(part, json.dumps(row), flush=True)
        result = {
            "command": "make bench-slow", "machine": before, "cells": {"one sample": SAMPLE, "many": MANY},
            "versions": process.versions(PEERS, ["scanpy", "infercnvpy", "numpy", "scipy"]), "parts": found,
        }  # fmt: skip
        OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
