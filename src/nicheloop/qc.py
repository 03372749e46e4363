"""Which barcodes are cells worth reading: robust thresholds per sample, and doublets.  See docs/qc.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, moments, neighbors

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_cells import Qc

HAEMOGLOBIN = frozenset({"HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ"})
SCALED_MAD = 1.4826  # makes the MAD of a normal distribution its standard deviation


def gene_classes(genes: Iterable[str]) -> dict[str, np.ndarray]:
    """(genes,) masks of mitochondrial (``mito``), ribosomal protein (``ribo``) and haemoglobin (``hb``) genes."""
    genes = list(genes)
    return {
        "mito": np.array([moments.MITO.fullmatch(g) is not None for g in genes], dtype=bool),
        "ribo": np.array([moments.RIBO.fullmatch(g) is not None for g in genes], dtype=bool),
        "hb": np.array([g in HAEMOGLOBIN for g in genes], dtype=bool),
    }


def metrics(x: csr_matrix, genes: Iterable[str]) -> pd.DataFrame:
    """Library size, genes and shares of every barcode.

    Parameters
    ----------
    x
        (cells, genes) counts.
    genes
        Symbols.

    Returns
    -------
    (cells,) table of ``n_counts`` (UMI), ``n_genes``, ``pct_mito``, ``pct_ribo``, ``pct_hb`` (percent; NaN where the
    matrix has no such gene, 0 for an empty barcode).
    """
    import pandas as pd

    totals = np.maximum(np.asarray(x.sum(axis=1, dtype=np.float64)).ravel(), 0.0)
    n_genes, some = np.zeros(x.shape[0], dtype=np.int64), np.diff(x.indptr) > 0
    n_genes[some] = np.add.reduceat(x.data > 0, x.indptr[:-1][some], dtype=np.int64) if some.any() else 0
    table = {"n_counts": totals, "n_genes": n_genes}
    for name, mask in gene_classes(genes).items():
        if not mask.any():
            table[f"pct_{name}"] = np.full(x.shape[0], np.nan)
            continue
        part = np.asarray(x @ mask.astype(np.float64)).ravel()
        share = np.divide(part, totals, out=np.zeros_like(totals), where=totals > 0)
        table[f"pct_{name}"] = np.clip(100 * share, 0.0, 100.0)
    return pd.DataFrame(table)


def bound(values: np.ndarray, n_mads: float, floor: float, cap: float, *, upper: bool) -> float:
    """Robust threshold: median -/+ `n_mads` scaled MAD, never below `floor` nor above `cap`.

    Parameters
    ----------
    values
        (cells,) values on the scale on which they are roughly symmetric; NaN are left out.
    n_mads
        Distance from the median in scaled MAD.
    floor, cap
        Limits of the threshold, on the same scale.
    upper
        Threshold above the median (else below).
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float(cap if upper else floor)
    median = float(np.median(values))
    mad = SCALED_MAD * float(np.median(np.abs(values - median)))
    cut = median + n_mads * mad if upper else median - n_mads * mad
    return round(float(np.clip(cut, floor, max(floor, cap))), 6)


@dataclass(frozen=True)
class Thresholds:
    """Smallest library (UMI), smallest number of genes, largest mitochondrial share (percent); None: not applied."""

    min_counts: float | None
    min_genes: float
    max_mito: float | None


def _lower(values: pd.Series, n_mads: float, floor: float, cap: float) -> float:
    """Lower threshold of counts, found on their logarithm."""
    logs = np.log1p(values.to_numpy(dtype=float))
    cut = np.expm1(bound(logs, n_mads, -np.inf, np.inf, upper=False)) if len(logs) else cap
    return float(np.clip(round(float(cut), 3), floor, max(floor, cap)))


def thresholds(table: pd.DataFrame, options: Qc, *, is_counts: bool = True) -> Thresholds:
    """Thresholds of one sample from its own `metrics`.

    Barcodes below both floors are empty and do not count for the median.  Without counts only the number of genes is
    judged: sums and shares of transformed values mean something else.
    """
    real = table[table["n_genes"] >= options.min_genes_floor]
    if is_counts:
        real = real[real["n_counts"] >= options.min_counts_floor]
    min_genes = _lower(real["n_genes"], options.n_mads, options.min_genes_floor, options.min_genes_cap)
    if not is_counts:
        return Thresholds(None, min_genes, None)
    min_counts = _lower(real["n_counts"], options.n_mads, options.min_counts_floor, options.min_counts_cap)
    mito = table["pct_mito"].to_numpy(dtype=float)
    max_mito = None
    if not np.isnan(mito).all():
        measured = real["pct_mito"].to_numpy(dtype=float)
        max_mito = bound(measured, options.n_mads, options.max_mito_floor, options.max_mito_cap, upper=True)
    return Thresholds(min_counts, min_genes, max_mito)


def reasons(table: pd.DataFrame, limits: Thresholds) -> np.ndarray:
    """(cells,) first filter a barcode fails: low_counts, low_genes, high_mito, else pass."""
    small = 1e-9  # a value on the threshold is kept
    out = np.full(len(table), "pass", dtype=object)
    if limits.max_mito is not None:
        out[table["pct_mito"].to_numpy(dtype=float) > limits.max_mito + small] = "high_mito"
    out[table["n_genes"].to_numpy(dtype=float) < limits.min_genes - small] = "low_genes"
    low = 0.0 if limits.min_counts is None else limits.min_counts - small
    totals = table["n_counts"].to_numpy(dtype=float)
    out[(totals < low) | (totals <= 0)] = "low_counts"
    return out


# ------------------------------------------------------------------------------------------------------- doublets
def _axes(z: csr_matrix, shift: np.ndarray, n_pcs: int) -> np.ndarray:
    """(genes, components) leading axes of ``z - shift`` for a sparse scaled z; through the smaller Gram matrix."""
    n, genes = z.shape
    k = max(1, min(n_pcs, n - 1, genes))
    if n > genes:
        total, sums, _ = neighbors.gram([z], genes)  # axes do not depend on the shift
        return neighbors.principal_axes(total, sums, n, k)[0]
    from scipy.linalg import eigh

    dense = z.toarray().astype(np.float64) - shift  # fewer cells than variable genes: bounded
    values, vectors = eigh(dense @ dense.T, subset_by_index=[n - k, n - 1])
    axes = dense.T @ vectors[:, ::-1] / np.sqrt(np.maximum(values[::-1], 1e-12))
    return neighbors.fix_signs(axes)


def n_components(n_cells: int, cells_per_component: int, least: int, most: int) -> int:
    """Principal components for a sample of that size: one per `cells_per_component` cells, within the limits.

    Beyond that a component describes single cells.  Cells then lie far from the simulated doublets, which are only
    projected on it, and true doublets are no longer among them.
    """
    return min(max(n_cells // cells_per_component, least), most)


def doublet_scores(
    x: csr_matrix,
    totals: np.ndarray,
    *,
    rate: float,
    seed: int,
    ratio: float,
    n_genes: int,
    n_pcs: int,
    min_cells: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scrublet's likelihood-ratio score (Wolock 2019, 10.1016/j.cels.2018.11.005).

    Doublets are simulated by adding the counts of random pairs; cells and simulated doublets are scaled to the same
    library size, z-scored with the cells' moments over variable genes and projected on the cells' principal components.
    With q the smoothed share of simulated doublets among k neighbours, r their ratio to cells and rho the expected
    rate, the score is (q rho / r) / (1 - rho - q (1 - rho - rho / r)).

    Parameters
    ----------
    x
        (cells, genes) counts.
    totals
        (cells,) library sizes.
    rate
        Expected share of doublets, rho.
    seed
        Of the pairs.
    ratio
        Simulated doublets per cell, r.
    n_genes, n_pcs, min_cells
        Variable genes (by normalised dispersion, in at least `min_cells` cells) and principal components.

    Returns
    -------
    (cells,) scores and (simulated,) scores, both in (0, 1).
    """
    from scipy.sparse import diags, vstack

    n = x.shape[0]
    positive, mean, variance = moments.gene_moments(x, totals)
    usable = np.flatnonzero((positive >= min_cells) & (variance > 0))
    dispersion = moments.normalised_dispersion(mean[usable], variance[usable])
    order = np.lexsort((usable, -np.nan_to_num(dispersion, nan=-np.inf)))
    chosen = np.sort(usable[order[:n_genes]])
    raw = x[:, chosen].astype(np.float64)
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, n, size=(round(n * ratio), 2))
    simulated = raw[pairs[:, 0]] + raw[pairs[:, 1]]
    scale = 1.0 / np.sqrt(variance[chosen])
    z = (diags(moments.size_factors(totals)) @ raw @ diags(scale)).tocsr()
    z_sim = (diags(moments.size_factors(totals[pairs].sum(axis=1))) @ simulated @ diags(scale)).tocsr()
    shift = mean[chosen] * scale
    with neighbors.one_thread():
        axes = _axes(z, shift, n_pcs)
        points = vstack([z, z_sim]) @ axes - shift @ axes
        k = round(round(0.5 * np.sqrt(n)) * (1 + ratio))
        k = max(1, min(k, len(points) - 1))
        near = neighbors.search(points, k + 1)
    own = near == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True  # among identical points the cell itself may not be listed
    q = (((near >= n) & ~own).sum(axis=1) + 1.0) / (k + 2.0)
    score = q * rate / ratio / (1 - rate - q * (1 - rate - rate / ratio))
    return score[:n], score[n:]


def histogram_minimum(values: np.ndarray, n_bins: int = 256, max_iterations: int = 10000) -> float | None:
    """Minimum between the two modes of a smoothed histogram (Prewitt and Mendelsohn 1966), or None without two modes.

    The same as ``skimage.filters.threshold_minimum``, whose import costs more than the search.
    """
    from scipy.ndimage import uniform_filter1d

    if len(values) == 0 or values.max() == values.min():
        return None
    counts, edges = np.histogram(values, bins=n_bins)
    centres, smooth = (edges[1:] + edges[:-1]) / 2, counts.astype(np.float32)
    for _ in range(max_iterations):
        smooth = uniform_filter1d(smooth, 3)
        peaks = _peaks(smooth)
        if len(peaks) < 3:
            break
    if len(peaks) != 2:
        return None
    return float(centres[peaks[0] + np.argmin(smooth[peaks[0] : peaks[1] + 1])])


def _peaks(values: np.ndarray) -> list[int]:
    """Positions of local maxima; the last of a plateau, and the first value if the next is lower."""
    step = np.concatenate([[1.0], np.sign(np.diff(values))])
    moving = np.flatnonzero(step)
    turns = np.flatnonzero((step[moving[:-1]] > 0) & (step[moving[1:]] < 0))
    return [int(i) - 1 for i in moving[turns + 1]]


@dataclass(frozen=True)
class DoubletCall:
    """(cells,) calls, the score above which they are made (None: none made), and how it was found."""

    doublet: np.ndarray
    threshold: float | None
    how: str
    detectable: float  # share of simulated doublets above the threshold


def call_doublets(
    scores: np.ndarray, simulated: np.ndarray, *, rate: float, max_excess: float, min_detectable: float, n_mads: float
) -> DoubletCall:
    """Call doublets from scores, automatically where the simulated scores have two modes, cautiously elsewhere.

    Parameters
    ----------
    scores, simulated
        (cells,) and (simulated,) scores of `doublet_scores`.
    rate
        Expected share of doublets.
    max_excess
        The automatic threshold is trusted up to this multiple of `rate`.  That it calls no cell is an answer, if it
        would have caught simulated doublets (`min_detectable`).
    min_detectable
        Smallest share of simulated doublets above a threshold for it to be used.
    n_mads
        In the fallback, distance from the median score in scaled MAD that makes a cell an outlier.

    Returns
    -------
    Calls with ``how``: ``automatic`` (minimum between the modes); ``expected_rate`` (fallback: the highest scores, at
    most the expected share of cells, and only outliers); ``not_separated`` (none called).
    """
    cut = histogram_minimum(simulated)
    if cut is not None:
        called, detectable = scores > cut, float((simulated > cut).mean())
        if called.mean() <= max_excess * rate and detectable >= min_detectable:
            return DoubletCall(called, cut, "automatic", detectable)
    cut = max(float(np.quantile(scores, 1 - rate, method="higher")), bound(scores, n_mads, 0.0, 1.0, upper=True))
    detectable = float((simulated > cut).mean())
    if detectable < min_detectable or not (scores > cut).any():
        return DoubletCall(np.zeros(len(scores), dtype=bool), None, "not_separated", detectable)
    return DoubletCall(scores > cut, cut, "expected_rate", detectable)


def run_qc(counts: str | Path, out: str | Path, *, options: Qc, seed: int) -> None:
    """Write ``samples/{sample}/qc.parquet``: every barcode with its metrics, doublet score, verdict and reason."""
    import pandas as pd

    data = io.Counts(counts)
    with io.stage_output(out, "qc", stage="qc", sample=data.sample) as result:
        data.require(counts=False)
        is_counts = bool(data.record["is_counts"])
        x = data.matrix()
        table = metrics(x, data.genes)
        table.insert(0, "cell_id", data.cell_ids)
        limits = thresholds(table, options, is_counts=is_counts)
        table["qc_reason"] = reasons(table, limits)
        table["doublet_score"] = np.nan
        table["doublet"] = pd.array([pd.NA] * len(table), dtype="boolean")
        kept = np.flatnonzero(table["qc_reason"] == "pass")
        kept = kept[np.argsort(data.cell_ids[kept].astype(str), kind="stable")]  # pairs must not depend on cell order
        summary: dict[str, Any] = {
            "min_counts": limits.min_counts, "min_genes": limits.min_genes, "max_mito": limits.max_mito,
            "n_barcodes": len(table), "doublets": "assessed",
        }  # fmt: skip
        if not is_counts:
            summary["doublets"] = "not assessed: the matrix holds no counts"
            summary["filters"] = "genes only: the matrix holds no counts"
        elif len(kept) < options.min_cells_doublets:
            summary["doublets"] = f"not assessed: {len(kept)} cells, at least {options.min_cells_doublets} needed"
        else:
            n_pcs = n_components(
                len(kept), options.doublet_cells_per_pc, options.doublet_min_pcs, options.doublet_max_pcs
            )
            scores, simulated = doublet_scores(
                x[kept], table["n_counts"].to_numpy()[kept], rate=options.doublet_rate, seed=seed,
                ratio=options.doublet_sim_ratio, n_genes=options.doublet_n_genes, n_pcs=n_pcs,
                min_cells=options.doublet_min_cells,
            )  # fmt: skip
            call = call_doublets(
                scores, simulated, rate=options.doublet_rate, max_excess=options.doublet_max_excess,
                min_detectable=options.doublet_min_detectable, n_mads=options.n_mads,
            )  # fmt: skip
            table.loc[kept, "doublet_score"] = scores
            table.loc[kept, "doublet"] = call.doublet
            if options.drop_doublets:
                table.loc[kept[call.doublet], "qc_reason"] = "doublet"
            summary |= {
                "doublet_call": call.how, "doublet_threshold": call.threshold, "n_doublets": int(call.doublet.sum()),
                "doublets_detectable": call.detectable, "doublets_dropped": options.drop_doublets,
                "doublet_components": n_pcs,
            }  # fmt: skip
        table["qc_pass"] = table["qc_reason"] == "pass"
        counted = table["qc_reason"].value_counts()
        result.summary = summary | {f"n_{k}": int(counted.get(k, 0)) for k in ("low_counts", "low_genes", "high_mito")}
        result.summary["n_pass"] = int(table["qc_pass"].sum())
        result.table = table
