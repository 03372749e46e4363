"""Gene-set scores beside decoupler's AUCell, pyucell and scanpy's score_genes: one data set, one run, the same cores.

``make bench-scoring`` writes benchmarks/results/scoring.json.  Data: 10,000 simulated cells x 20,000 genes, 20 sets.
Every tool is called four times in a process of its own, bound to the same cores.  The first call pays for compilation
and imports and is kept apart; the fastest of the other three is compared, since whatever else runs only adds time.
Timed is the call on log-normalised expression in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "scoring.json"
N_CELLS, N_GENES, N_SETS, N_NULLS = 10_000, 20_000, 20, 1000
SIZES = (10, 200)  # smallest and largest set
CALLS = 4
TOOLS = ("ours", "ours_null", "aucell", "ucell", "score_genes")
PEERS = ("aucell", "ucell")  # in the environment of the peers
FLOORS = {"ratio_aucell": 30.0, "ratio_ucell": 30.0, "ratio_score_genes": 1.0}
NULL_SECONDS, NULL_MB = 60.0, 1024.0


def simulate(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write log-normalised expression (CSR), gene names and sets: rates log-normal, libraries log-normal."""
    import numpy as np
    from scipy import sparse

    rng = np.random.default_rng(seed)
    rate = rng.lognormal(-3.0, 1.9, N_GENES)
    parts = []
    for start in range(0, n_cells, 500):
        library = rng.lognormal(0, 0.4, (min(500, n_cells - start), 1))
        counts = sparse.csr_matrix(rng.poisson(library * rate).astype(np.float32))
        total = np.asarray(counts.sum(axis=1)).ravel()
        counts.data = np.log1p(counts.data * np.repeat(1e4 / total, np.diff(counts.indptr))).astype(np.float32)
        parts.append(counts)
    sparse.save_npz(path / "x.npz", sparse.vstack(parts).tocsr(), compressed=False)
    names = [f"G{i:05d}" for i in range(N_GENES)]
    common = np.argsort(-rate)[:12_000]
    sets = {
        f"set{k}": [names[i] for i in sorted(rng.choice(common, int(rng.integers(*SIZES)), replace=False))]
        for k in range(N_SETS)
    }
    (path / "sets.json").write_text(json.dumps({"genes": names, "sets": sets}))


def call(tool: str, adata: Any, sets: dict[str, list[str]], cores: int) -> Any:
    """Run one tool once; returns its scores."""
    if tool in ("ours", "ours_null"):
        from nicheloop import scoring

        how = {"n_bins": 25, "min_genes": 3, "min_cells": 20, "threads": cores}
        genes = list(adata.var_names)
        if tool == "ours":
            return scoring.score_sets(adata.X, genes, sets, **how)
        return scoring.null_p(adata.X, genes, sets, n_sets=N_NULLS, seed=1, **how)
    if tool == "aucell":
        import decoupler
        import pandas as pd

        net = pd.DataFrame(
            [(name, g, 1.0) for name, genes in sets.items() for g in genes], columns=["source", "target", "weight"]
        )
        return decoupler.mt.aucell(adata, net, tmin=3)
    if tool == "ucell":
        import pyucell

        return pyucell.compute_ucell_scores(adata, signatures=sets, n_jobs=cores)
    import scanpy

    for name, genes in sets.items():
        scanpy.tl.score_genes(adata, genes, score_name=name, random_state=0)
    return adata.obs


def measure(tool: str, data: Path, cores: int, out: Path) -> None:
    """Load the data, call a tool four times, and write the seconds and the memory."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    stored = json.loads((data / "sets.json").read_text())
    x = sparse.load_npz(data / "x.npz").tocsr()
    adata = ad.AnnData(
        x, obs=pd.DataFrame(index=[f"c{i}" for i in range(x.shape[0])]), var=pd.DataFrame(index=stored["genes"])
    )
    before = _status("VmRSS")
    seconds, begun = [], time.time()
    for _ in range(CALLS):
        clock = time.perf_counter()
        call(tool, adata, stored["sets"], cores)
        seconds.append(time.perf_counter() - clock)
    out.write_text(
        json.dumps(
            {
                "seconds": min(seconds[1:]),
                "first_seconds": seconds[0],
                "before_mb": before,
                "peak_mb": _status("VmHWM"),
                "start": begun,
                "end": time.time(),
                "nonzeros": int(x.nnz),
            }
        )
    )


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def summarise(found: dict[str, dict[str, Any]], failed: dict[str, str], cores: int, n_cells: int) -> dict[str, Any]:
    """Figures, ratios and what they say of the aims."""
    from benchmarks.bench_crosstalk import processor

    out: dict[str, Any] = {
        "cores": cores,
        "processor": processor(),
        "cells": n_cells,
        "genes": N_GENES,
        "sets": N_SETS,
        "null_sets": N_NULLS,
        "tools": found,
        "failed": failed,
    }
    ratios = {
        f"ratio_{t}": found[t]["seconds"] / found["ours"]["seconds"]
        for t in ("aucell", "ucell", "score_genes")
        if t in found and "ours" in found
    }
    holds: dict[str, bool | None] = {k: (ratios[k] >= floor if k in ratios else None) for k, floor in FLOORS.items()}
    null = found.get("ours_null")
    holds["null_seconds"] = None if null is None else null["seconds"] <= NULL_SECONDS
    holds["null_mb"] = None if null is None else null["peak_mb"] < NULL_MB
    return out | {
        "ratios": ratios,
        "floors": FLOORS | {"null_seconds": NULL_SECONDS, "null_mb": NULL_MB},
        "holds": holds,
    }


def main() -> int:
    """Run every tool and write the results; 1 where an aim is missed or a tool failed."""
    from benchmarks.bench_crosstalk import run_process

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--tools", type=Path, help="python of the environment with decoupler and pyucell")
    parser.add_argument("--cells", type=int, default=N_CELLS)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.data, args.cores, args.out)
        return 0
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        simulate(data, args.cells)
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(args.cores)
        )
        for tool in TOOLS:
            if tool in PEERS and args.tools is None:
                failed[tool] = "no environment of peers given (--tools)"
                continue
            python = str(args.tools.absolute() if tool in PEERS else Path(sys.executable))  # type: ignore[union-attr]
            command = [
                python,
                str(Path(__file__).resolve()),
                "--measure",
                tool,
                "--data",
                str(data),
                "--cores",
                str(args.cores),
                "--out",
                str(data / f"{tool}.json"),
            ]
            environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
            try:
                found[tool] = run_process(command, environment, data / f"{tool}.json", args.cores)
            except RuntimeError as err:
                failed[tool] = str(err)[-400:]
                print(err, file=sys.stderr)
            else:
                print(f"{tool}: {found[tool]['seconds']:.2f} s, {found[tool]['peak_mb']:.0f} MB", flush=True)
    summary = summarise(found, failed, args.cores, args.cells)
    args.out.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    print(json.dumps({"ratios": summary["ratios"], "holds": summary["holds"]}, indent=1))
    return int(bool(failed) or not all(summary["holds"].values()))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
