"""Mean and variance of every gene over the kept cells of a sample, and classes of genes.  See docs/embed.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import io
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy.sparse import csr_matrix

TARGET = 1e4  # counts per 10,000
BLOCK = 2048  # cells summed at a time
MITO = re.compile(r"MT-.+")  # the hyphen keeps pseudogenes (MTND1P23) out
RIBO = re.compile(r"RPL\d+(A|L|AL|L1)?|RPLP[012]|RPS\d+(A|L|X|Y1|Y2)?|RPSA2?")  # proteins; not RPS6KA1, not RPL7P1
VARIABLE_REGION = re.compile(r"IG[HKL]V.+|IG[HKL][DJ]\d.*|TR[ABDG][VDJ]\d.*")  # of antibodies and T-cell receptors


def size_factors(totals: np.ndarray, target: float = TARGET) -> np.ndarray:
    """(cells,) factors that scale a library to `target`; 0 for an empty one."""
    totals = np.asarray(totals, dtype=np.float64)
    return np.asarray(np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0))


def gene_moments(
    x: csr_matrix, totals: np.ndarray, target: float = TARGET
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments of counts scaled to the same library size, not logged.

    Parameters
    ----------
    x
        (cells, genes) counts.
    totals
        (cells,) library sizes.
    target
        Library size to scale to.

    Returns
    -------
    n_positive : (genes,) cells with a count
    mean : (genes,) mean, in counts per `target`; 0 without cells
    variance : (genes,) sample variance (n - 1); NaN for fewer than two cells
    """
    n, genes = x.shape
    factors = size_factors(totals, target)
    positive, stored = np.zeros(genes, dtype=np.int64), np.zeros(genes, dtype=np.int64)
    total, square = np.zeros(genes), np.zeros(genes)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Genes, counts and scaled counts of some cells: arrays as long as the matrix cost more than the sums."""
        for start in range(0, n, BLOCK):
            ends = x.indptr[start : start + BLOCK + 1]
            part = slice(ends[0], ends[-1])
            scaled = x.data[part] * np.repeat(factors[start : start + BLOCK], np.diff(ends))
            yield x.indices[part], x.data[part], scaled

    for gene, count, scaled in blocks():
        positive += np.bincount(gene[count > 0], minlength=genes)
        stored += np.bincount(gene, minlength=genes)
        np.add.at(total, gene, scaled)
    mean = total / max(n, 1)
    if n < 2:
        return positive, mean, np.full(genes, np.nan)
    # two passes: the difference of two large sums would lose the small variances
    for gene, _, scaled in blocks():
        np.add.at(square, gene, (scaled - mean[gene]) ** 2)
    return positive, mean, (square + (n - stored) * mean**2) / (n - 1)


def normalised_dispersion(mean: np.ndarray, variance: np.ndarray, n_bins: int = 20) -> np.ndarray:
    """Log variance-to-mean ratio, standardised within bins of the log mean (10.1038/nbt.3192, scanpy's "seurat").

    Parameters
    ----------
    mean, variance
        (genes,) moments of genes with a count, not logged.
    n_bins
        Bins of equal width of log1p(mean).

    Returns
    -------
    (genes,) z-like dispersion; NaN where the variance is 0.  A gene alone in its bin gets 1.
    """
    if len(mean) == 0:
        return np.zeros(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = variance / mean
        dispersion = np.log(np.where(ratio > 0, ratio, np.nan))
    level = np.log1p(mean)
    edges = np.linspace(level.min(), level.max(), n_bins + 1)
    bins = np.clip(np.searchsorted(edges, level, side="left") - 1, 0, n_bins - 1)
    known = ~np.isnan(dispersion)
    count = np.bincount(bins[known], minlength=n_bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.bincount(bins[known], weights=dispersion[known], minlength=n_bins) / count
        square = np.bincount(bins[known], weights=(dispersion[known] - average[bins[known]]) ** 2, minlength=n_bins)
        deviation = np.sqrt(square / (count - 1))
        alone = count == 1
        deviation[alone], average[alone] = average[alone], 0.0
        return np.asarray((dispersion - average[bins]) / deviation[bins])


def run_moments(counts: str | Path, qc: str | Path, out: str | Path) -> None:
    """Write ``samples/{sample}/moments.parquet``."""
    import pandas as pd

    data = io.Counts(counts)
    with io.stage_output(out, "moments", stage="moments", sample=data.sample) as result:
        data.require(counts=False)
        kept = io.kept_cells(qc)
        if len(kept) == 0:
            raise NotAssessable("no_cells", "no cell passed quality control")
        x = data.matrix(cells=kept)
        positive, mean, variance = gene_moments(x, np.asarray(x.sum(axis=1, dtype=np.float64)).ravel())
        result.summary = {"n_cells": x.shape[0], "n_genes_detected": int((positive > 0).sum())}
        result.table = pd.DataFrame(
            {"gene": data.genes, "n_cells": x.shape[0], "n_positive": positive, "mean": mean, "variance": variance}
        )
