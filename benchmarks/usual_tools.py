"""From counts to clusters and a map by one tool: QC, variable genes, 30 components, neighbours, Leiden, UMAP.

python benchmarks/usual_tools.py TOOL COUNTS.h5ad OUT THREADS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_GENES, N_COMPONENTS, N_NEIGHBORS = 2000, 30, 15
MIN_GENES, MAX_MITO = 200, 20.0


def nicheloop(path: Path, out: Path, threads: int, lap: Callable[[str], None]) -> dict[str, Any]:
    """Our stages on their files; doublets are left out, as the other tools do here, and nothing is integrated."""
    import numpy as np

    from nicheloop import embed, io, moments, neighbors, qc
    from nicheloop.config_cells import Embed, Qc

    options = Embed(integrate=False, resolutions=[1.0], stability_runs=2, threads=threads)
    qc.run_qc(path, out / "qc.parquet", options=Qc(min_cells_doublets=10**9), seed=0)
    lap("qc")
    moments.run_moments(path, out / "qc.parquet", out / "moments.parquet")
    embed.run_hvg([out / "moments.parquet"], out / "hvg.parquet", options=options)
    lap("variable genes")
    embed.run_embed(
        [path], [out / "qc.parquet"], out / "hvg.parquet", out / "embedding.parquet", out / "clusters.parquet",
        out / "neighbors.parquet", options=options, kept=N_NEIGHBORS, seed=0, threads=threads,
    )  # fmt: skip
    lap("components to map")
    if len(sys.argv) > 5:  # after the clock
        table = io.read_table(out / "embedding.parquet")
        x = table[[c for c in table if c.startswith("pc_")]].to_numpy()
        exact = len(x) < options.exact_neighbors_below
        with neighbors.one_thread():
            found, _ = neighbors.nearest(x, N_NEIGHBORS, exact=exact)
        some = np.random.default_rng(0).choice(len(x), 1000, replace=False)
        square = ((x[some][:, None, :] - x[None, :, :]) ** 2).sum(axis=2) if len(x) < 5000 else _far(x, some)
        truth = np.argsort(square, axis=1)[:, :N_NEIGHBORS]
        recall = np.mean([len(set(a) & set(b)) for a, b in zip(truth, found[some], strict=True)]) / N_NEIGHBORS
        return {"cells": len(x), "recall": round(float(recall), 4)}
    return {}


def _far(x: Any, some: Any) -> Any:
    """(some, cells) squared distances in double precision."""
    own = (x**2).sum(axis=1)
    return own[some, None] + own[None, :] - 2 * x[some] @ x.T


def scanpy(path: Path, out: Path, threads: int, lap: Callable[[str], None]) -> dict[str, Any]:
    """Scanpy's own steps."""
    import scanpy as sc

    data = sc.read_h5ad(path)
    lap("read")
    data.var["mt"] = data.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(data, qc_vars=["mt"], inplace=True, percent_top=None)
    data = data[(data.obs["n_genes_by_counts"] >= MIN_GENES) & (data.obs["pct_counts_mt"] < MAX_MITO)].copy()
    lap("qc")
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    sc.pp.highly_variable_genes(data, n_top_genes=N_GENES)
    lap("variable genes")
    sc.pp.pca(data, n_comps=N_COMPONENTS)
    lap("components")
    sc.pp.neighbors(data, n_neighbors=N_NEIGHBORS)
    lap("neighbours")
    sc.tl.leiden(data, flavor="igraph", n_iterations=2, directed=False)
    lap("leiden")
    sc.tl.umap(data)
    lap("umap")
    return {"cells": data.n_obs}


def scranpy(path: Path, out: Path, threads: int, lap: Callable[[str], None]) -> dict[str, Any]:
    """Libscran through scranpy, following its own walk-through."""
    import anndata as ad
    import numpy as np
    import scranpy as scr

    data = ad.read_h5ad(path)
    x = data.X.T.tocsc()
    lap("read")
    mito = np.flatnonzero(data.var_names.str.startswith("MT-"))
    metrics = scr.compute_rna_qc_metrics(x, {"mito": mito}, num_threads=threads)
    kept = scr.filter_rna_qc_metrics(scr.suggest_rna_qc_thresholds(metrics), metrics)
    x = x[:, np.flatnonzero(kept)]
    lap("qc")
    sizes = scr.center_size_factors(np.asarray(metrics.get_column("sum"), dtype=np.float64)[kept])
    normal = scr.normalize_counts(x, sizes)
    fits = scr.model_gene_variances(normal, num_threads=threads)
    chosen = scr.choose_highly_variable_genes(np.asarray(fits["statistics"].get_column("residual")), top=N_GENES)
    lap("variable genes")
    parts = scr.run_pca(normal, number=N_COMPONENTS, subset=chosen, num_threads=threads)
    lap("components")
    scr.run_all_neighbor_steps(
        parts["components"], run_tsne_options=None, num_threads=threads,
        build_snn_graph_options={"num_neighbors": N_NEIGHBORS},
        cluster_graph_options={"method": "leiden"},
    )  # fmt: skip
    lap("neighbours, leiden, umap")
    return {"cells": int(x.shape[1])}


def main(tool: str, path: str, out: str, threads: str, *_: str) -> None:
    """Run one tool; its steps and their seconds go to OUT/clock.json."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    start = [time.perf_counter()]
    clock: dict[str, float] = {}

    def lap(step: str) -> None:
        now = time.perf_counter()
        clock[step] = round(now - start[0], 2)
        start[0] = now

    said = {"nicheloop": nicheloop, "scanpy": scanpy, "scranpy": scranpy}[tool](Path(path), folder, int(threads), lap)
    (folder / "clock.json").write_text(json.dumps({"steps": clock, **said}, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
