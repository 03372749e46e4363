"""Barcodes that hold RNA of a cell of another type as well: doublets that earlier stages kept.  See docs/loop.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.ligand_receptor import Bools, Floats, Sample

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_niche import Loop

PROFILE = ["gene", "cell_type", "n_cells", "sum_counts"]  # columns of ``profiles`` that `foreign_share` reads
NOT_NICHE = ("malignant", "csc_high", "epithelial", "platelet")


def niche_share(counts: Floats, library: Floats, tumour: float, niche: float, *, alpha: float) -> Floats:
    """Share of each cell's RNA that would have to come from a niche population, from genes that it makes.

    Parameters
    ----------
    counts, library
        (cells,) counts of those genes, and of all genes.
    tumour, niche
        Share of those genes in the counts of malignant cells and of the population; `niche` is the larger.
    alpha
        Level of the one-sided Poisson test that a cell has more of them than malignant cells do.

    Returns
    -------
    (cells,) w of the mixture (1 - w) tumour + w niche, at most 1; 0 where the counts are what malignant cells have.
    """
    from scipy.special import pdtrc

    expected = library * tumour
    # pdtrc is P(X > k): k = counts - 1 makes it P(X >= counts)
    more = (counts > 0) & (pdtrc(np.maximum(counts - 1, 0), expected) < alpha)
    share = np.divide(counts, library, out=np.zeros_like(counts), where=library > 0)
    return np.where(more, np.clip((share - tumour) / (niche - tumour), 0.0, 1.0), 0.0)


def _largest(
    counts: csr_matrix,
    library: Floats,
    own: Floats,
    others: Iterable[Floats],
    free: Bools,
    *,
    fold: float,
    alpha: float,
) -> Floats:
    """(cells,) largest `niche_share` over populations with shares `others` (genes,) each, from the `free` genes."""
    asked = []
    for theirs in others:
        columns = np.flatnonzero(free & (theirs > 0) & (theirs >= fold * own))
        level, background = float(theirs[columns].sum()), float(own[columns].sum())
        if level > background:
            asked.append((columns, level, background))
    member = np.zeros((counts.shape[1], len(asked)))
    for k, (columns, _, _) in enumerate(asked):
        member[columns, k] = 1.0
    seen = counts @ member  # one pass over the matrix; whole counts: exact
    found = np.zeros(len(library))
    for k, (_, level, background) in enumerate(asked):
        found = np.maximum(found, niche_share(seen[:, k], library, background, level, alpha=alpha))
    return found


def foreign_share(
    counts: csr_matrix,
    genes: Sequence[str],
    own: Floats,
    profiles: pd.DataFrame,
    *,
    leave_out: Collection[str],
    spared: Collection[str],
    min_cells: int,
    fold: float,
    alpha: float,
) -> Floats:
    """Share of each cell's RNA that would have to come from a cell of another type of its sample.

    Parameters
    ----------
    counts
        (cells, genes) UMI of the cells of one kind.
    genes, own
        (genes,) symbols, and the share of each in the counts of that kind.
    profiles
        Summed counts per gene and major type of the sample (contract ``profiles``).
    leave_out
        Types that are no source: the kind itself, and what is no type.
    spared
        Genes that take no part, so that no cell is left out for what is asked of it.
    min_cells
        A source needs as many cells.
    fold
        Genes of a source: those with `fold` times the share they have in `own`.
    alpha
        See `niche_share`.

    Returns
    -------
    (cells,) share, 0 where the cell has no more of any type's genes than its own kind has: the ambient RNA of the
    sample is in that, so it alone raises nothing.
    """
    import pandas as pd

    library = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    if not len(profiles) or not library.sum() > 0:
        return np.zeros(len(library))
    row, types = pd.factorize(profiles["cell_type"])
    column, symbols = pd.factorize(profiles["gene"])
    weights = profiles["sum_counts"].to_numpy(dtype=np.float64)
    wide = np.bincount(row * len(symbols) + column, weights, len(types) * len(symbols)).reshape(len(types), -1)
    sizes = np.zeros(len(types), dtype=np.int64)
    np.maximum.at(sizes, row, profiles["n_cells"].to_numpy(dtype=np.int64))
    at = pd.Index(symbols).get_indexer(pd.Index(genes))
    total = wide.sum(axis=1)
    sources = [k for k, t in enumerate(types) if t not in leave_out and sizes[k] >= min_cells and total[k] > 0]
    others = (np.where(at >= 0, wide[k][at] / total[k], 0.0) for k in sources)
    free = ~pd.Index(genes).isin(sorted(spared))
    return _largest(counts, library, own, others, free, fold=fold, alpha=alpha)


def mixed_cells(sample: Sample, spared: Collection[str], options: Loop) -> Bools:
    """(cells,) malignant cells of which ``niche_share`` or more would have to be a cell of one niche population.

    Parameters
    ----------
    spared
        Genes that take no part: read-outs, covariates and the genes of the labels, so that no cell is left out for
        what is asked of it.

    Notes
    -----
    For every population of ``min_senders`` cells outside the tumour, its genes are those with ``niche_fold`` times the
    share they have in malignant cells.  Malignant cells are their own background, so ambient RNA, and what the tumour
    itself makes, is expected of each.
    """
    out = np.zeros(len(sample.totals), dtype=bool)
    tumour = sample.masks[:, sample.names.index("malignant")]
    library = sample.totals[tumour]
    if not library.sum() > 0:
        return out
    sums, total = sample.sums.umi, sample.sums.library_size
    share = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
    own = share[sample.names.index("malignant")]
    free = ~np.isin(sample.genes.astype(str), sorted(spared))
    sizes = sample.masks.sum(axis=0)
    sources = [k for k, t in enumerate(sample.names) if t not in NOT_NICHE and sizes[k] >= options.min_senders]
    found = _largest(
        sample.x[tumour], library, own, share[sources], free, fold=options.niche_fold, alpha=options.niche_alpha
    )
    out[tumour] = found >= options.niche_share
    return out
