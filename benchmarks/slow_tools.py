"""One stage by one side, for `benchmarks/slow.py`: python benchmarks/slow_tools.py SIDE PART INPUT OUT THREADS."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

N_NEIGHBORS, RATE = 15, 0.06
WINDOW, STEP, CLIP, THRESHOLD, SHOWN = 100, 10, 3.0, 1.5, 200  # infercnvpy's defaults; cells compared


def ours(part: str, path: Path, threads: int) -> tuple[float, Any]:
    """Seconds of the call, and its answer."""
    if part == "reading":
        from nicheloop import readers_mtx

        start = time.perf_counter()
        answer = readers_mtx.read_mtx(path / "matrix.mtx.gz").matrix
        return time.perf_counter() - start, answer
    if part == "doublets":
        from nicheloop import qc
        from nicheloop.config_cells import Qc

        x, options = _matrix(path), Qc()
        start = time.perf_counter()
        totals = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()
        n_pcs = qc.n_components(
            x.shape[0], options.doublet_cells_per_pc, options.doublet_min_pcs, options.doublet_max_pcs
        )
        scores, _ = qc.doublet_scores(
            x, totals, rate=RATE, seed=0, ratio=options.doublet_sim_ratio, n_genes=options.doublet_n_genes,
            n_pcs=n_pcs, min_cells=options.doublet_min_cells,
        )  # fmt: skip
        return time.perf_counter() - start, scores
    if part == "copy number":
        import anndata as ad

        from nicheloop import cnv

        data = ad.read_h5ad(path)
        reference = np.asarray(data.X[(data.obs["kind"] == "reference").to_numpy()].mean(axis=0))
        start = time.perf_counter()
        found = cnv.denoise(cnv.smooth(data.X, reference, cnv.layout(data.var, WINDOW, STEP), CLIP), THRESHOLD)
        return time.perf_counter() - start, found[:SHOWN]
    from nicheloop import neighbors

    x = np.load(path)
    start = time.perf_counter()
    with neighbors.one_thread():
        near = neighbors.nearest(x, N_NEIGHBORS, threads=threads)
    answer = near[0] if part == "neighbours" else neighbors.fuzzy_graph(*near)
    return time.perf_counter() - start, answer


def theirs(part: str, path: Path, threads: int) -> tuple[float, Any]:
    """Seconds of the call, and its answer, with the library's defaults."""
    import anndata as ad
    import scanpy as sc

    if part == "reading":
        start = time.perf_counter()
        answer = sc.read_10x_mtx(path).X
        return time.perf_counter() - start, answer
    if part == "doublets":
        data = ad.AnnData(_matrix(path))
        start = time.perf_counter()
        sc.pp.scrublet(data, expected_doublet_rate=RATE, random_state=0)
        return time.perf_counter() - start, data.obs["doublet_score"].to_numpy()
    if part == "copy number":
        import infercnvpy

        data = ad.read_h5ad(path)
        reference = np.asarray(data.X[(data.obs["kind"] == "reference").to_numpy()].mean(axis=0))
        start = time.perf_counter()
        _, found, _ = infercnvpy.tl.infercnv(data, reference=reference, window_size=WINDOW, step=STEP, inplace=False)
        return time.perf_counter() - start, found[:SHOWN].toarray()
    data = ad.AnnData(np.zeros((len(x := np.load(path)), 1), dtype=np.float32), obsm={"X": x})
    start = time.perf_counter()
    sc.pp.neighbors(data, n_neighbors=N_NEIGHBORS, use_rep="X")
    seconds = time.perf_counter() - start
    if part != "neighbours":
        return seconds, data.obsp["connectivities"]
    found = data.obsp["distances"]
    rows = np.full((data.n_obs, N_NEIGHBORS), -1)
    for i in range(data.n_obs):
        own = found.indices[found.indptr[i] : found.indptr[i + 1]][:N_NEIGHBORS]
        rows[i, : len(own)] = own
    return seconds, rows


def _matrix(path: Path) -> Any:
    """The counts of an h5ad, without what only one side needs."""
    import h5py
    from scipy.sparse import csr_matrix

    with h5py.File(path) as handle:
        node = handle["X"]
        return csr_matrix((node["data"][:], node["indices"][:], node["indptr"][:]), shape=tuple(node.attrs["shape"]))


def main(side: str, part: str, path: str, out: str, threads: str) -> None:
    """Run one part; the answer goes beside OUT, the seconds to OUT.json."""
    seconds, answer = (ours if side == "ours" else theirs)(part, Path(path), int(threads))
    if isinstance(answer, np.ndarray):
        np.save(f"{out}.npy", answer)
    else:
        from scipy.sparse import csr_matrix, save_npz

        save_npz(f"{out}.npz", csr_matrix(answer), compressed=False)
    Path(f"{out}.json").write_text(json.dumps({"call_seconds": round(seconds, 2)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
