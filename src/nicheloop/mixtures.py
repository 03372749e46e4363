"""Malignant barcodes that hold RNA of a niche cell as well: doublets that earlier stages kept.  See docs/loop.md."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.ligand_receptor import Bools, Floats, Sample, weighted_sums

if TYPE_CHECKING:
    from nicheloop.config import Loop

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
    sums, total = weighted_sums(sample.x, sample.totals, sample.masks.astype(np.float64))
    share = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
    own = share[sample.names.index("malignant")]
    free = ~np.isin(sample.genes.astype(str), sorted(spared))
    x, found = sample.x[tumour], np.zeros(len(library))
    for k, name in enumerate(sample.names):
        if name in NOT_NICHE or int(sample.masks[:, k].sum()) < options.min_senders:
            continue
        genes = np.flatnonzero(free & (share[k] > 0) & (share[k] >= options.niche_fold * own))
        level, background = float(share[k, genes].sum()), float(own[genes].sum())
        if level > background:
            counts = np.asarray(x[:, genes].sum(axis=1), dtype=np.float64).ravel()
            found = np.maximum(found, niche_share(counts, library, background, level, alpha=options.niche_alpha))
    out[tumour] = found >= options.niche_share
    return out
