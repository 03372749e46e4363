"""QC to clusters and map beside scanpy and scranpy: the same file of counts, in turn, each a process of its own.

    make bench-usual                 50,000 cells
    make bench-usual CELLS=10000

Writes benchmarks/results/usual.json: whole processes, imports and reading included, the file in the system's memory
before each; of several rounds the median run of each tool.  Recall is of our neighbours against all distances in double
precision.
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


def one(tool: str, path: Path, work: Path, cells: int, cores: int, *, check: bool) -> dict[str, Any]:
    """Run one tool once; `check` also measures the recall of our neighbours, outside the clock."""
    out = work / f"usual_{tool}_{cells}"
    shutil.rmtree(out, ignore_errors=True)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**dict.fromkeys(names, str(cores)), "NUMBA_CACHE_DIR": os.fspath(work / "numba")}
    if tool == "nicheloop":
        environment["PYTHONPATH"] = str(ROOT / "src")
    command = [sys.executable if tool == "nicheloop" else PEERS, SCRIPT, tool, path, out, cores]
    with open(path, "rb") as stream:
        while stream.read(1 << 24):
            pass
    found = process.run_tree(command, work / f"usual_{tool}.log", cores=cores, environment=environment)
    found |= json.loads((out / "clock.json").read_text())
    if check:
        process.run_tree([*command, "check"], work / "check.log", cores=cores, environment=environment)
        found["recall"] = json.loads((out / "clock.json").read_text())["recall"]
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench")
    parser.add_argument("--tools", nargs="+", default=["nicheloop", "scanpy", "scranpy"])
    args = parser.parse_args()
    path = counts_file(args.work, args.cells)
    before = process.machine(args.cores)
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in args.tools}
    for i in range(args.rounds):
        for tool in args.tools:
            check = tool == "nicheloop" and i == 0
            runs[tool].append(one(tool, path, args.work, args.cells, args.cores, check=check))
            print(tool, runs[tool][-1], flush=True)
    found: dict[str, Any] = {}
    for tool, rounds in runs.items():
        middle = sorted(rounds, key=lambda r: r["seconds"])[len(rounds) // 2]
        found[tool] = {**rounds[0], **middle, "rounds": [r["seconds"] for r in rounds]}
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
