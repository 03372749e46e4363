"""QC to clusters and map beside scanpy and scranpy: the same file of counts, in turn, each a process of its own.

    make bench-usual                 50,000 cells
    make bench-usual CELLS=10000

Writes benchmarks/results/usual.json: whole processes, imports and reading included; recall is of our neighbours
against all distances in double precision.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import cohort, process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "usual.json"
PEERS = ROOT / "benchmarks" / ".venv" / "bin" / "python"
SCRIPT = ROOT / "benchmarks" / "usual_tools.py"


def counts_file(work: Path, n: int) -> Path:
    """One sample of `n` cells as our ingest writes it, an h5ad the others read as well."""
    folder = work / f"one_{n}"
    path = folder / "counts.h5ad"
    if not path.exists():
        cohort.write_cohort(folder, cells=n, samples=1)
        subprocess.run(
            [sys.executable, "-m", "nicheloop", "ingest", "--path", folder / "p001", "--out", path,
             "--record-out", folder / "ingest.json"], check=True,
        )  # fmt: skip
    return path


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench")
    parser.add_argument("--tools", nargs="+", default=["nicheloop", "scanpy", "scranpy"])
    args = parser.parse_args()
    path = counts_file(args.work, args.cells)
    before = process.machine(args.cores)
    threads = {k: str(args.cores) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    found: dict[str, Any] = {}
    for tool in args.tools:
        out = args.work / f"usual_{tool}_{args.cells}"
        shutil.rmtree(out, ignore_errors=True)
        python = sys.executable if tool == "nicheloop" else PEERS
        environment = {**threads, "PYTHONPATH": str(ROOT / "src")} if tool == "nicheloop" else threads
        environment["NUMBA_CACHE_DIR"] = os.fspath(args.work / "numba")
        command = [python, SCRIPT, tool, path, out, args.cores]
        found[tool] = process.run_tree(
            command, args.work / f"usual_{tool}.log", cores=args.cores, environment=environment
        )
        found[tool] |= json.loads((out / "clock.json").read_text())
        if tool == "nicheloop":
            process.run_tree([*command, "check"], args.work / "check.log", cores=args.cores, environment=environment)
            found[tool]["recall"] = json.loads((out / "clock.json").read_text())["recall"]
        print(tool, found[tool], flush=True)
    mine = found.get("nicheloop", {})
    ratios = {
        f"{kind}_ratio_{t}": round(found[t][key] / mine[key], 2)
        for kind, key in (("time", "seconds"), ("cpu", "cpu_seconds"))
        for t in found
        if mine and t != "nicheloop"
    }
    result = {"command": "make bench-usual", "cells": args.cells, "machine": before, **ratios, "tools": found}
    result["versions"] = process.versions(PEERS, ["scanpy", "scranpy", "numpy", "scipy", "umap-learn", "igraph"])
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
