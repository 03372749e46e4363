"""Variable genes, principal components, integration, neighbours, clusters and the map.  See docs/embed.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nicheloop import io, lean, moments, neighbors
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_cells import Embed

# dying cells, ribosome content and clonotypes would each become components of their own
EXCLUDED = (moments.MITO, moments.RIBO, moments.VARIABLE_REGION)


# ----------------------------------------------------------------------------------------------- variable genes
def excluded(genes: Iterable[str]) -> np.ndarray:
    """(genes,) mask of mitochondrial, ribosomal protein and immunoglobulin / T-cell-receptor variable-region genes."""
    return np.array([any(p.fullmatch(g) for p in EXCLUDED) for g in genes], dtype=bool)


def top_genes(dispersion: np.ndarray, n_top: int) -> np.ndarray:
    """(genes,) mask of the `n_top` highest values, ties with the last one included; NaN never."""
    known = dispersion[~np.isnan(dispersion)]
    if len(known) == 0 or n_top < 1:
        return np.zeros(len(dispersion), dtype=bool)
    cut = np.sort(known)[::-1][min(n_top, len(known)) - 1]
    return np.asarray(np.nan_to_num(dispersion, nan=-np.inf) >= cut)


def variable_genes(samples: Sequence[pd.DataFrame], *, n_top: int, n_bins: int = 20) -> pd.DataFrame:
    """Choose genes that vary within samples (never between them).

    Per sample: dispersion normalised within bins of the mean, the `n_top` highest are variable there.  Over samples:
    genes ranked by the number of samples in which they are variable, then by the mean normalised dispersion, then by
    name.  As ``scanpy.pp.highly_variable_genes(flavor="seurat", n_top_genes=n_top, batch_key="sample")``; a gene
    without counts in a sample, or absent from its matrix, counts as 0 there.

    Parameters
    ----------
    samples
        Moments tables (``gene``, ``n_positive``, ``mean``, ``variance``) of samples with at least two cells.
    n_top
        Genes wanted.
    n_bins
        Bins of the mean.

    Returns
    -------
    (union of genes,) table of the contract "hvg", sorted by gene.
    """
    import pandas as pd

    genes = np.array(sorted(set().union(*(s["gene"] for s in samples))), dtype=object)
    position = {g: i for i, g in enumerate(genes)}
    out = excluded(genes)
    mean, total, known, votes = (np.zeros(len(genes)) for _ in range(4))
    for sample in samples:
        where = np.fromiter((position[g] for g in sample["gene"]), dtype=np.int64, count=len(sample))
        expressed = sample["n_positive"].to_numpy(dtype=float) > 0
        rows = where[expressed]
        values = moments.normalised_dispersion(
            sample["mean"].to_numpy(dtype=float)[expressed], sample["variance"].to_numpy(dtype=float)[expressed], n_bins
        )
        mean[rows] += sample["mean"].to_numpy(dtype=float)[expressed]
        nan = np.isnan(values)
        total[rows] += np.where(nan, 0.0, values)
        seen = np.ones(len(genes), dtype=bool)
        seen[rows[nan]] = False
        known += seen
        votes[rows] += top_genes(np.where(out[rows], np.nan, values), n_top)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.where(known > 0, total / known, np.nan)
    rank = np.lexsort((np.arange(len(genes)), -np.nan_to_num(average, nan=-np.inf), -votes))
    candidates = rank[~out[rank] & ~np.isnan(average[rank])]
    variable = np.zeros(len(genes), dtype=bool)
    variable[candidates[:n_top]] = True
    return pd.DataFrame(
        {
            "gene": genes,
            "mean": mean / max(len(samples), 1),
            "dispersion_norm": average,
            "n_samples_variable": votes.astype(int),
            "variable": variable,
        }
    )


def run_hvg(moments: Sequence[str | Path], out: str | Path, *, options: Embed) -> None:
    """Write ``cohort/hvg.parquet`` from the moments of every sample."""
    with io.stage_output(out, "hvg", stage="hvg") as result:
        samples = [t for t in (io.read_table(path) for path in moments) if len(t) and t["n_cells"].iloc[0] >= 2]
        large = [t for t in samples if t["n_cells"].iloc[0] >= options.min_cells_sample]
        voting = large or samples
        if not voting:
            raise NotAssessable("no_cells", "no sample has two cells that passed quality control")
        table = variable_genes(voting, n_top=options.n_hvg, n_bins=options.n_bins)
        result.summary = {
            "n_variable": int(table["variable"].sum()), "n_samples_voting": len(voting), "n_samples": len(moments),
            "n_genes_excluded": int(excluded(table["gene"].tolist()).sum()),
        }  # fmt: skip
        if not table["variable"].any():
            raise NotAssessable("no_variable_genes", "no gene varies within any sample")
        result.table = table


# ------------------------------------------------------------------------------------------- principal components
def lognorm_block(x: csr_matrix, totals: np.ndarray, columns: np.ndarray, n_genes: int) -> csr_matrix:
    """log1p of counts per 10,000 of the full library, spread over the cohort's variable genes.

    Parameters
    ----------
    x
        (cells, genes of the sample) counts of variable genes.
    totals
        (cells,) full library sizes.
    columns
        (genes of the sample,) their positions among the variable genes; a gene the sample lacks stays 0.
    n_genes
        Variable genes of the cohort.

    Returns
    -------
    (cells, n_genes) CSR float32.
    """
    from scipy.sparse import csr_matrix

    values = np.log1p(x.data * np.repeat(moments.size_factors(totals), np.diff(x.indptr)))
    block = csr_matrix((values.astype(np.float32), columns[x.indices], x.indptr), shape=(x.shape[0], n_genes))
    block.sort_indices()
    return block


def integrate(components: np.ndarray, samples: np.ndarray, seed: int) -> np.ndarray:
    """(cells, components) after harmony (10.1038/s41592-019-0619-0) on the sample; the same for any number of cores."""
    import logging

    from harmonypy import run_harmony

    logging.getLogger("harmonypy").setLevel(logging.WARNING)
    n_clusters = int(np.clip(round(len(components) / 30), 1, 100))
    fit = run_harmony(
        components, {"sample": samples}, ["sample"], nclust=n_clusters, random_state=seed, ncores=1, verbose=False
    )
    return np.asarray(fit.Z_corr, dtype=np.float64)


# ------------------------------------------------------------------------------------------------------- clusters
def by_size(labels: np.ndarray) -> np.ndarray:
    """(cells,) the same clusters numbered from the largest; equal ones by their first cell."""
    _, first, code, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[code]


@dataclass(frozen=True)
class Clustering:
    """Labels of the best repeat (cells,), and the mean pairwise adjusted Rand index of the repeats."""

    labels: np.ndarray
    stability: float

    @property
    def n_clusters(self) -> int:
        """Clusters of the best repeat."""
        return len(np.unique(self.labels))


Method = Literal["auto", "leidenalg", "igraph"]
Edges = tuple[int, np.ndarray, np.ndarray]  # cells, (edges, 2) ends, (edges,) weights


class Leiden:
    """Runs of Leiden on one graph, which each process builds once: that takes as long as half a run."""

    def __init__(self, edges: Edges, method: Method, n_iterations: int):
        self.edges, self.method, self.n_iterations = edges, method, n_iterations

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_graph"}

    @cached_property
    def _graph(self) -> tuple[Any, list[float]]:
        with lean.without("matplotlib"):
            import igraph

        n, ends, weight = self.edges
        return igraph.Graph(n=n, edges=ends, directed=False), weight.tolist()

    def __call__(self, resolution: float, seed: int) -> tuple[np.ndarray, float]:
        """One run: (cells,) labels and the quality it reached."""
        g, weights = self._graph
        if self.method == "leidenalg":
            import leidenalg

            part = leidenalg.find_partition(
                g, leidenalg.RBConfigurationVertexPartition, weights=weights, resolution_parameter=resolution,
                n_iterations=self.n_iterations, seed=seed,
            )  # fmt: skip
            quality = part.quality()
        else:
            import random

            import igraph

            igraph.set_random_number_generator(random.Random(seed))
            part = g.community_leiden(
                objective_function="modularity", weights=weights, resolution=resolution, n_iterations=self.n_iterations
            )
            igraph.set_random_number_generator(random)
            quality = g.modularity(part.membership, weights=weights, resolution=resolution) if weights else 0.0
        return np.asarray(part.membership, dtype=np.int64), float(quality)


def implementation(method: Method, n_edges: int, igraph_from: int) -> Method:
    """Resolve "auto": leidenalg, from `igraph_from` edges igraph."""
    if method == "auto":
        return "leidenalg" if n_edges < igraph_from else "igraph"
    return method


def leiden(
    graph: csr_matrix,
    resolutions: Sequence[float],
    seeds: Sequence[int],
    *,
    method: Method,
    n_iterations: int,
    igraph_from: int = 0,
    threads: int = 1,
    parallel_edges: int = 0,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[float, Clustering]:
    """Leiden clusters (10.1038/s41598-019-41695-z) of a weighted graph at each resolution, repeated with every seed.

    Parameters
    ----------
    graph
        (cells, cells) symmetric weights.
    resolutions
        Of the Reichardt-Bornholdt quality with the configuration null model.
    seeds
        One per repeat; the repeat of the highest quality is kept, the first among equals.
    method
        "leidenalg", or igraph's own implementation of the same quality; "auto": the latter from `igraph_from` edges.
    n_iterations
        Negative: until nothing improves.
    threads
        Processes the repeats are spread over; the result is the same.
    parallel_edges
        Graphs with fewer edges are worked on in this process.
    meanwhile
        Other work, done here while other processes cluster.
    """
    from scipy.sparse import triu
    from sklearn.metrics import adjusted_rand_score

    upper = triu(graph, k=1).tocoo()
    edges = (graph.shape[0], np.column_stack([upper.row, upper.col]), upper.data)
    method = implementation(method, upper.nnz, igraph_from)
    jobs = [(resolution, seed) for resolution in resolutions for seed in seeds]
    run = Leiden(edges, method, n_iterations)
    found = concurrent(run, jobs, threads if upper.nnz >= parallel_edges else 1, meanwhile)
    out = {}
    for i, resolution in enumerate(resolutions):
        repeats, quality = zip(*found[i * len(seeds) : (i + 1) * len(seeds)], strict=True)
        scores = [adjusted_rand_score(x, y) for j, x in enumerate(repeats) for y in repeats[j + 1 :]]
        best = by_size(repeats[int(np.argmax(quality))])
        out[resolution] = Clustering(best, float(np.mean(scores)) if scores else 1.0)
    return out


def concurrent(
    call: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], processes: int, meanwhile: Callable[[], None]
) -> list[Any]:
    """Results of ``call(*job)`` in the order of the jobs, after `meanwhile`.

    With several processes, this one does `meanwhile` while the others begin with the jobs, then takes from the end what
    they have not begun.  `call` is handed to each process once.
    """
    if processes < 2 or not jobs:
        meanwhile()
        return [call(*job) for job in jobs]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    n, how = min(processes - 1, len(jobs)), get_context("spawn")
    with ProcessPoolExecutor(n, mp_context=how, initializer=_hold, initargs=(call,)) as pool:
        futures = [pool.submit(_do, *job) for job in jobs]
        meanwhile()
        own = {i: call(*jobs[i]) for i in reversed(range(len(jobs))) if futures[i].cancel()}
        return [own[i] if i in own else futures[i].result() for i in range(len(jobs))]


_given: list[Callable[..., Any]] = []  # what a process of `concurrent` was handed


def _hold(call: Callable[..., Any]) -> None:
    _given.append(call)


def _do(*job: Any) -> Any:
    return _given[0](*job)


def most_stable(clusterings: dict[float, Clustering], tolerance: float) -> float:
    """Return the finest resolution whose stability is within `tolerance` of the best one.

    One cluster is always stable: such a resolution is chosen only if all are like that.
    """
    several = {r: c for r, c in clusterings.items() if c.n_clusters > 1} or clusterings
    best = max(c.stability for c in several.values())
    return max(r for r, c in several.items() if c.stability >= best - tolerance)


# ------------------------------------------------------------------------------------------------------------ map
def umap(graph: csr_matrix, components: np.ndarray, *, min_dist: float, n_epochs: int, seed: int) -> np.ndarray:
    """Map of the cells: UMAP (arXiv:1802.03426) started from the first two components (10.1038/s41587-020-00809-z).

    Parameters
    ----------
    graph
        (cells, cells) weights of `neighbors.fuzzy_graph`.
    components
        (cells, >= 2) components the graph was built on.
    min_dist, n_epochs
        UMAP's options of the same meaning.
    seed
        Of the negative samples; with a seed UMAP runs in one thread.

    Returns
    -------
    (cells, 2) coordinates.  Fewer than five cells, or cells that do not differ in one of their first two components,
    keep these.
    """
    start = np.ascontiguousarray(components[:, :2], dtype=np.float64)
    if len(start) < 5 or not np.ptp(start, axis=0).all():  # umap-learn divides by the extent of its start
        return start
    import anndata as ad
    import scanpy as sc

    cells = ad.AnnData(obsm={"X_pca": components}, obsp={"connectivities": graph}, shape=(len(start), 0))
    parameters = {"method": "umap", "use_rep": "X_pca"}
    cells.uns["neighbors"] = {"connectivities_key": "connectivities", "params": parameters}
    sc.tl.umap(cells, min_dist=min_dist, maxiter=n_epochs, init_pos=start, random_state=seed)
    chart = cells.obsm["X_umap"]
    return np.asarray(chart, dtype=np.float64)


def prepare() -> None:
    """Load UMAP and have it compiled (2 s) on a few cells, beside other work."""
    cells = np.arange(16.0).reshape(8, 2)
    umap(neighbors.fuzzy_graph(*neighbors.nearest(cells, 3)), cells, min_dist=0.5, n_epochs=1, seed=0)


def some_of(n: int, most: int, seed: int) -> np.ndarray:
    """(at most `most`,) positions of cells drawn at random, in rising order; all where there are no more."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def placed(chart: np.ndarray, components: np.ndarray, some: np.ndarray, k: int) -> np.ndarray:
    """Map of all cells from the map of `some` of them.

    Parameters
    ----------
    chart
        (some, 2) coordinates.
    components
        (cells, components).
    some
        (some,) positions of the cells of `chart`.
    k
        Neighbours that place a cell.

    Returns
    -------
    (cells, 2): the cells of `chart` where they are, the others at the median of their `k` nearest ones of them.
    """
    if len(some) == len(components):
        return chart
    near = neighbors.search(components[some], min(k, len(some)), queries=components)
    out = np.asarray(np.median(chart[near], axis=1))
    out[some] = chart
    return out


# ---------------------------------------------------------------------------------------------------------- stage
@dataclass(frozen=True)
class _Sample:
    """One sample's kept cells, sorted by id, with their library sizes and the variable genes it has."""

    data: io.Counts
    cells: np.ndarray
    totals: np.ndarray
    genes: list[str]
    columns: np.ndarray

    def block(self, n_genes: int) -> csr_matrix:
        """Log-normalised variable genes, read anew."""
        return lognorm_block(self.data.matrix(cells=self.cells, genes=self.genes), self.totals, self.columns, n_genes)


def _read_sample(counts: str | Path, qc: str | Path, genes: np.ndarray) -> _Sample:
    data = io.Counts(counts)
    table = io.read_table(qc, columns=["cell_id", "n_counts", "qc_pass"])
    table = table[table["qc_pass"].astype(bool)].sort_values("cell_id", kind="stable")
    have = set(data.genes)
    columns = np.array([i for i, g in enumerate(genes) if g in have], dtype=np.int64)
    cells = table["cell_id"].to_numpy(dtype=object)
    return _Sample(data, cells, table["n_counts"].to_numpy(dtype=float), [str(genes[i]) for i in columns], columns)


def _components(samples: Sequence[_Sample], n_genes: int, n_pcs: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(cells, components >= 2) scores and (components,) variances; each sample is read twice, none is kept."""
    total, sums, n = neighbors.gram((sample.block(n_genes) for sample in samples), n_genes, threads)
    loadings, variances = neighbors.principal_axes(total, sums, n, n_pcs)
    centre = (sums / n) @ loadings
    scores = np.vstack([sample.block(n_genes) @ loadings - centre for sample in samples])
    if scores.shape[1] < 2:  # one or two cells: the map still needs two columns
        scores = np.hstack([scores, np.zeros((len(scores), 2 - scores.shape[1]))])
    return scores, variances


def _nearest(coordinates: np.ndarray, options: Embed, threads: int = 1, k: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions and distances of at least `k` neighbours in (cells, components) coordinates."""
    exact = len(coordinates) < options.exact_neighbors_below
    with neighbors.one_thread():
        return neighbors.nearest(coordinates, max(options.n_neighbors, k), exact=exact, threads=threads)


def _graph(near: tuple[np.ndarray, np.ndarray], options: Embed) -> csr_matrix:
    """Weights of the neighbours of the map and the clusters."""
    indices, distances = (part[:, : options.n_neighbors] for part in near)
    return neighbors.fuzzy_graph(indices, distances)


def _others(indices: np.ndarray, order: np.ndarray, k: int) -> dict[str, Any]:
    """Columns of the contract ``neighbors``: the `k` nearest other cells as rows of the table in that order."""
    import pandas as pd

    row_of = np.empty(len(order) + 1, dtype=np.int64)
    row_of[order], row_of[-1] = np.arange(len(order)), -1  # the last place answers for -1
    others = row_of[indices[order, 1 : k + 1]]
    return {f"neighbor_{j + 1}": pd.arrays.IntegerArray(c.copy(), c < 0) for j, c in enumerate(others.T)}


def run_embed(
    counts: Sequence[str | Path],
    qc: Sequence[str | Path],
    hvg: str | Path,
    out_embedding: str | Path,
    out_clusters: str | Path,
    out_neighbors: str | Path,
    *,
    options: Embed,
    kept: int,
    seed: int,
    threads: int | None = None,
) -> None:
    """Write ``cohort/embedding.parquet``, ``clusters.parquet`` and the `kept` nearest cells in ``neighbors.parquet``.

    Results do not depend on the order of samples, cells or genes in the input, nor on `threads`.
    """
    import pandas as pd

    threads = threads or options.threads
    also: dict[str, str | Path] = {"clusters": out_clusters, "neighbors": out_neighbors}
    with io.stage_output(out_embedding, "embedding", stage="embed", also=also) as result, neighbors.one_thread():
        table = io.read_table(hvg, columns=["gene", "variable"])
        genes = np.sort(table.loc[table["variable"].astype(bool), "gene"].to_numpy(dtype=object))
        given = [_read_sample(c, q, genes) for c, q in zip(counts, qc, strict=True)]
        samples = sorted((s for s in given if len(s.cells)), key=lambda s: s.data.sample)
        if not samples:
            raise NotAssessable("no_cells", "no cell of any sample passed quality control")
        if len(genes) == 0:
            status = io.read_status(hvg)
            raise NotAssessable("no_variable_genes", status.reason or "no gene varies within any sample")
        ids = np.concatenate([s.cells for s in samples])
        names = np.repeat(np.array([s.data.sample for s in samples], dtype=object), [len(s.cells) for s in samples])
        n_large = sum(len(s.cells) >= options.min_cells_sample for s in samples)
        integrated = options.integrate and n_large > 1
        with ThreadPoolExecutor(1) as other:  # loads UMAP, then searches: both leave the interpreter free
            ready = other.submit(prepare if threads > 1 else int)
            scores, variances = _components(samples, len(genes), options.n_pcs, threads)
            some = some_of(len(scores), options.raw_map_cells, seed)
            coordinates, before = scores, None
            if integrated:
                before = other.submit(_nearest, scores[some], options)
                if threads == 1:
                    before.result()
                coordinates = integrate(scores, names, seed)
            near = _nearest(coordinates, options, threads, kept + 1)  # the cell itself is the first
            ready.result()
        graph = _graph(near, options)
        charts = []

        def draw() -> None:
            how: dict[str, Any] = {"min_dist": options.umap_min_dist, "n_epochs": options.umap_epochs, "seed": seed}
            drawn = some_of(len(scores), options.map_cells, seed)
            whole = graph if len(drawn) == len(scores) else _graph(_nearest(coordinates[drawn], options), options)
            chart = umap(whole, coordinates[drawn], **how)
            charts.append(placed(chart, coordinates, drawn, options.n_neighbors))
            if before is None:
                charts.append(np.full_like(charts[0], np.nan))
                return
            plain = umap(_graph(before.result(), options), scores[some], **how)
            charts.append(placed(plain, scores, some, options.n_neighbors))

        seeds = np.random.SeedSequence(seed).generate_state(options.stability_runs).astype(int) % (2**31 - 1)
        clusterings = leiden(
            graph, sorted(set(options.resolutions)), seeds.tolist(), method=options.leiden,
            n_iterations=options.leiden_iterations, igraph_from=options.igraph_from, threads=threads,
            parallel_edges=options.parallel_edges, meanwhile=draw,
        )  # fmt: skip
        chosen = most_stable(clusterings, options.stability_tolerance)

        columns: dict[str, Any] = {"cell_id": ids, "sample": names}
        columns |= {f"pc_{i + 1}": scores[:, i] for i in range(scores.shape[1])}
        columns |= {f"harmony_{i + 1}": coordinates[:, i] for i in range(coordinates.shape[1])}
        chart, raw = charts
        columns |= {"umap_1": chart[:, 0], "umap_2": chart[:, 1], "umap_raw_1": raw[:, 0], "umap_raw_2": raw[:, 1]}
        # back to the order of the input: sample sheet, then file
        wanted = np.concatenate([s.data.cell_ids for s in given])
        order = pd.Index(ids).get_indexer(wanted)
        order = order[order >= 0]
        result.table = pd.DataFrame(columns).iloc[order]
        labels: dict[str, Any] = {"cell_id": ids, "sample": names}
        labels |= {f"leiden_{r:g}": c.labels.astype(str) for r, c in clusterings.items()}
        labels["cluster"] = clusterings[chosen].labels.astype(str)
        result.extra["clusters"] = pd.DataFrame(labels).iloc[order]
        result.extra["neighbors"] = pd.DataFrame(
            {"cell_id": ids[order], "sample": names[order], **_others(near[0], order, kept)}
        )
        result.summary = {
            "n_cells": len(ids), "n_samples": len(samples), "n_genes": len(genes), "n_pcs": len(variances),
            "variance": variances[:10].round(6), "integrated": integrated,
            "n_neighbors": min(options.n_neighbors, len(ids)),
            "neighbors": "exact" if len(ids) < options.exact_neighbors_below else "hnsw",
            "stability": {f"{r:g}": round(c.stability, 4) for r, c in clusterings.items()},
            "leiden": implementation(options.leiden, graph.nnz // 2, options.igraph_from),
            "n_clusters": {f"{r:g}": c.n_clusters for r, c in clusterings.items()}, "resolution": f"{chosen:g}",
        }  # fmt: skip
