"""How time and memory grow with the cohort: our workflow on 10,000 to 300,000 cells (a million: make bench-million).

    make bench-growth                          samples of about 3,850 cells, more and more of them
    make bench-growth SIZES="10000 30000"

Per rule: seconds and processor seconds summed over its jobs, the peak of its largest job, and the exponent of a
straight line through the logarithms of processor seconds and cells.  Sizes measured earlier stay in the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cohort, process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "growth.json"
CELLS_PER_SAMPLE = 3850  # as in GSE176078: 100,064 cells of 26 patients


def jobs(results: Path) -> dict[str, dict[str, float]]:
    """Per rule: number of jobs, summed seconds and processor seconds, largest peak in MB."""
    rules: dict[str, dict[str, float]] = {}
    for job in process.usage(results):
        rule = rules.setdefault(job["rule"], {"jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0})
        rule["jobs"] += 1
        for name in ("seconds", "cpu_seconds"):
            rule[name] = round(rule[name] + job[name], 2)
        rule["peak_mb"] = max(rule["peak_mb"], job["peak_mb"])
    return rules


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one commit, that of most sizes: a curve through two states of the code says nothing of growth."""
    codes = [r.get("code") for r in rows]
    most = max(codes, key=codes.count, default=None)
    return [r for r in rows if r.get("code") == most]


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log processor seconds on log cells, for rules seen at two sizes or more of one commit."""
    out, rows = {}, comparable(rows)
    for name in sorted(set().union(*(r["rules"] for r in rows))):
        points = [(r["cells"], r["rules"][name]["cpu_seconds"]) for r in rows if name in r["rules"]]
        points = [p for p in points if p[1] > 0]
        if len(points) > 1:
            n, s = np.log(np.array(points, dtype=float)).T
            out[name] = round(float(np.polyfit(n, s, 1)[0]), 2)
    return out


def main() -> None:
    """Measure the sizes asked for and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench")
    parser.add_argument("--without", nargs="*", default=[], help="targets left out, such as atlas.h5ad")
    args = parser.parse_args()
    rows = {r["cells"]: r for r in (json.loads(OUT.read_text())["rows"] if OUT.exists() else [])}
    for n in args.sizes:
        samples = max(round(n / CELLS_PER_SAMPLE), 2)
        data, out = args.work / f"growth_data_{n}", args.work / f"growth_{n}"
        sheet = cohort.write_cohort(data, cells=n, samples=samples, cores=args.cores)
        shutil.rmtree(out, ignore_errors=True)
        state = process.machine(args.cores)
        command = [sys.executable, "-m", "nicheloop", "run", sheet, "--out", out, "--cores", args.cores]
        command += ["--snakemake", "--omit-from", *(out / t for t in args.without)] if args.without else []
        found = process.with_jobs(process.run_tree(command, args.work / f"growth_{n}.log", cores=args.cores), out)
        disk = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        rows[n] = {
            "cells": n, "samples": samples, **found, "disk_mb": round(disk / 1e6), "without": args.without,
            "load_before": state["load_before"], "code": state["code"], "rules": jobs(out),
        }  # fmt: skip
        ordered = [rows[k] for k in sorted(rows)]
        result = {"command": "make bench-growth", "machine": state, "exponents": exponents(ordered), "rows": ordered}
        OUT.write_text(json.dumps(result, indent=2) + "\n")
        print(n, found, flush=True)


if __name__ == "__main__":
    main()
