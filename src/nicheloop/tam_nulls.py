"""M1 against M2 in one donor: correlation beyond depth, stress, interferon, among matched sets.  See docs/tam.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nicheloop import scoring

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix


Floats = NDArray[np.float64]

# z_IFN is the interferon set without HLA genes: MP17 would take the HLA genes of M1 with it
COVARIATES = ("IFN", "STRESS")
ADJUSTMENTS = ("depth", "adjusted")  # beyond log library size; beyond that, interferon and stress


def correlations(x: Floats, y: Floats, covariates: Floats) -> Floats:
    """(columns,) Spearman correlation of the columns of `x` and `y` after regression on covariates; NaN where constant.

    Parameters
    ----------
    x, y
        (cells, columns) without NaN.
    covariates
        (cells, k) without NaN.
    """
    import pandas as pd  # its ranks are those of scipy.stats, which takes longer to load than to rank

    centred = covariates - covariates.mean(axis=0)
    spread = centred.std(axis=0)
    design = np.column_stack([np.ones(len(x)), centred[:, spread > 0] / spread[spread > 0]])
    basis = np.linalg.qr(design)[0]

    def ranks(values: Floats) -> Floats:
        left = values - basis @ (basis.T @ values)
        ranked = pd.DataFrame(np.round(left, 10)).rank(axis=0).to_numpy()
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
    observed, mean, sd, _ = scoring.matched_null(x, bins, members, skewness=False)
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
