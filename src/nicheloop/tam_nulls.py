"""M1 against M2 in one donor: correlation beyond depth, stress, interferon, among matched sets.  See docs/tam.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nicheloop import scoring
from nicheloop.mixtures import niche_share

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config import Tam

Floats = NDArray[np.float64]

# z_IFN is the interferon set without HLA genes: MP17 would take the HLA genes of M1 with it
COVARIATES = ("IFN", "STRESS")
ADJUSTMENTS = ("depth", "adjusted")  # beyond log library size; beyond that, interferon and stress
MYELOID = "myeloid"
NOT_SOURCES = (MYELOID, "unresolved", "platelet")


def foreign_share(
    counts: csr_matrix, genes: Sequence[str], profiles: pd.DataFrame, *, spared: set[str], options: Tam
) -> Floats:
    """Share of each myeloid cell's RNA that would have to come from a cell of another type: doublets, and more.

    Parameters
    ----------
    counts
        (cells, genes) UMI of myeloid cells.
    profiles
        Summed counts per gene and major type of the sample (contract ``profiles``).
    spared
        Genes that take no part: those of the axes and states, so that no cell is left out for what is asked of it.

    Returns
    -------
    (cells,) share, 0 where the cell has no more of any type's genes than myeloid cells have: the ambient RNA of the
    sample is in that, so it alone raises nothing.
    """
    library = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    found = np.zeros(len(library))
    wide = profiles.pivot_table(index="gene", columns="cell_type", values="sum_counts", aggfunc="sum", fill_value=0.0)
    sizes = profiles.groupby("cell_type")["n_cells"].max()
    if MYELOID not in wide or not library.sum() > 0:
        return found
    shares = (wide / wide.sum(axis=0)).reindex(list(genes), fill_value=0.0)
    own = shares[MYELOID].to_numpy(dtype=np.float64)
    free = ~np.isin(np.asarray(genes, dtype=object).astype(str), sorted(spared))
    for name in shares.columns:
        if name in NOT_SOURCES or int(sizes[name]) < options.min_macrophages:
            continue
        theirs = shares[name].to_numpy(dtype=np.float64)
        columns = np.flatnonzero(free & (theirs > 0) & (theirs >= options.foreign_fold * own))
        level, background = float(theirs[columns].sum()), float(own[columns].sum())
        if level > background:
            seen = np.asarray(counts[:, columns].sum(axis=1), dtype=np.float64).ravel()
            found = np.maximum(found, niche_share(seen, library, background, level, alpha=options.foreign_alpha))
    return found


def correlations(x: Floats, y: Floats, covariates: Floats) -> Floats:
    """(columns,) Spearman correlation of the columns of `x` and `y` after regression on covariates; NaN where constant.

    Parameters
    ----------
    x, y
        (cells, columns) without NaN.
    covariates
        (cells, k) without NaN.
    """
    from scipy.stats import rankdata

    centred = covariates - covariates.mean(axis=0)
    spread = centred.std(axis=0)
    design = np.column_stack([np.ones(len(x)), centred[:, spread > 0] / spread[spread > 0]])
    basis = np.linalg.qr(design)[0]

    def ranks(values: Floats) -> Floats:
        left = values - basis @ (basis.T @ values)
        ranked = rankdata(np.round(left, 10), axis=0)
        return np.asarray(ranked - ranked.mean(axis=0), dtype=np.float64)

    a, b = ranks(x), ranks(y)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.asarray(np.where(norm > 0, (a * b).sum(axis=0) / np.where(norm > 0, norm, 1.0), np.nan), dtype=np.float64)


def covariates_of(cells: pd.DataFrame) -> dict[str, Floats]:
    """(cells, k) covariates of each of `ADJUSTMENTS`; a score that is not measurable is left out."""
    depth = np.log(np.maximum(cells["n_counts"].to_numpy(dtype=np.float64), 1.0))
    found = [cells[f"z_{c}"].to_numpy(dtype=np.float64) for c in COVARIATES if f"z_{c}" in cells]
    found = [np.where(np.isfinite(v), v, np.nanmean(v)) for v in found if np.isfinite(v).any()]
    return {"depth": depth[:, None], "adjusted": np.column_stack([depth, *found])}


def rho_draws(
    x: csr_matrix,
    genes: Sequence[str],
    macrophage: NDArray[np.bool_],
    cells: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    *,
    n_sets: int,
    n_bins: int,
    min_genes: int,
    seed: int,
) -> dict[str, tuple[float, Floats]]:
    """Correlation of M1 and M2 over macrophages, and that of random sets matched to them.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression of myeloid cells, sorted: matching is over all of them.
    macrophage
        (cells,) those that the correlation is taken over.
    cells
        (cells,) n_counts and z of the covariates.
    sets
        ``M1`` and ``M2``.

    Returns
    -------
    Adjustment -> observed correlation, and (draws,) those of pairs of random sets without a gene in common; empty where
    a set has fewer than `min_genes` genes or the correlation is not defined.  Observed and drawn sets go the same way:
    mean over the set, less the mean of its null, over the null's standard deviation.
    """
    lookup = {g: i for i, g in enumerate(genes)}
    found = scoring.resolve_sets({name: list(sets[name]) for name in ("M1", "M2")}, genes)
    members = [np.array([lookup[g] for g in found[name]], dtype=np.int64) for name in ("M1", "M2")]
    if min(len(m) for m in members) < min_genes or macrophage.sum() < 4:
        return {}
    bins = scoring.gene_bins(x, genes, n_bins=n_bins)
    observed, mean, sd = scoring.matched_null(x, bins, members)
    rows = np.flatnonzero(macrophage & (sd > 1e-9).all(axis=1))
    if len(rows) < 4:
        return {}
    drawn = [
        scoring.draw_sets(bins, genes, m, n_sets=n_sets, seed=seed, name=n)
        for m, n in zip(members, ("M1", "M2"), strict=True)
    ]
    apart = [not set(a[a >= 0]) & set(b[b >= 0]) for a, b in zip(*drawn, strict=True)]
    part = x[rows].tocsc()
    values = []
    for k, draws in enumerate(drawn):
        own = (observed[rows, k] - mean[rows, k]) / sd[rows, k]
        level = scoring.set_means(part, draws[apart])
        values.append(np.column_stack([own, (level - mean[rows, k][:, None]) / sd[rows, k][:, None]]))
    out = {}
    for name, columns in covariates_of(cells.iloc[rows]).items():
        rho = correlations(values[0], values[1], columns)
        if np.isfinite(rho[0]):
            out[name] = (float(rho[0]), rho[1:][np.isfinite(rho[1:])])
    return out
