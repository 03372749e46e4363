"""Copy-number profiles beside infercnvpy: same cells, genes, reference, windows; each in a process of its own.

    make bench-cnv

Wall time, peak resident memory of the process and what the step added to it, and the share of equal values.
Writes benchmarks/results/cnv.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "cnv.json"
WINDOW, STEP, CLIP, THRESHOLD = 100, 10, 3.0, 1.5  # infercnvpy's defaults
TOOLS = ("ours", "infercnvpy")


def simulate(path: Path, n_cells: int, n_genes: int, seed: int = 0) -> None:
    """Write log-normalised counts at real gene positions; a fifth of the cells is the reference."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    from scipy import sparse

    from nicheloop import genes, io

    table = genes.table().dropna(subset=["chromosome", "start", "end", "arm"])
    rng = np.random.default_rng(seed)
    table = table.iloc[np.sort(rng.choice(len(table), min(n_genes, len(table)), replace=False))]
    rate = rng.lognormal(0, 2.0, len(table))
    rate /= rate.sum()
    blocks = []
    for _ in range(0, n_cells, 250):
        depth = rng.lognormal(np.log(3600), 0.4, (min(250, n_cells), 1))
        blocks.append(sparse.csr_matrix(rng.poisson(depth * rate).astype(np.float32)))
    x = io.lognormalise(sparse.vstack(blocks).tocsr()[:n_cells])
    var = table[["chromosome", "start", "end", "arm"]].copy()
    var["start"], var["end"] = var["start"].astype(np.int64), var["end"].astype(np.int64)
    kind = np.where(np.arange(n_cells) % 5 == 0, "reference", "tumour")
    obs = pd.DataFrame({"kind": pd.Categorical(kind)}, index=[f"c{i}" for i in range(n_cells)])
    ad.AnnData(x, obs=obs, var=var).write_h5ad(path)


def peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(tool: str, path: Path, out: Path) -> dict[str, float]:
    """Profile all cells with one tool; the result goes to `out` for comparison."""
    import anndata as ad
    import numpy as np

    from nicheloop import cnv

    data = ad.read_h5ad(path)
    reference = np.asarray(data.X[(data.obs["kind"] == "reference").to_numpy()].mean(axis=0))
    if tool == "infercnvpy":
        import infercnvpy

    before, start = peak_mb(), time.perf_counter()
    if tool == "infercnvpy":
        _, found, _ = infercnvpy.tl.infercnv(
            data, reference=reference, window_size=WINDOW, step=STEP, n_jobs=1, inplace=False
        )
    else:
        where = cnv.layout(data.var, WINDOW, STEP)
        found = cnv.denoise(cnv.smooth(data.X, reference, where, CLIP), THRESHOLD)
    seconds, peak = time.perf_counter() - start, peak_mb()
    some = found[:200]
    np.save(out, some if isinstance(some, np.ndarray) else some.toarray())
    return {"seconds": round(seconds, 2), "peak_mb": round(peak), "added_mb": round(peak - before)}


def main() -> None:
    """Measure both tools and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--one", nargs=3, metavar=("TOOL", "DATA", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), Path(args.one[2]))))
        return
    import numpy as np

    result: dict[str, Any] = {"cells": args.cells, "genes": args.genes, "window": WINDOW, "step": STEP, "cores": 1,
                              "python": platform.python_version()}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.h5ad"
        simulate(data, args.cells, args.genes)
        profiles = {}
        for tool in TOOLS:
            out = Path(folder) / f"{tool}.npy"
            done = subprocess.run(
                [sys.executable, __file__, "--one", tool, str(data), str(out)], check=True, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
            )  # fmt: skip
            result[tool] = json.loads(done.stdout.strip().splitlines()[-1])
            profiles[tool] = np.load(out)
    ours, theirs = (profiles[t] for t in TOOLS)
    same = np.isclose(ours, theirs, atol=1e-5) if ours.shape == theirs.shape else np.zeros(1, dtype=bool)
    result["share_of_equal_values_200_cells"] = float(same.mean())  # the rest lies at the border of the noise filter
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
