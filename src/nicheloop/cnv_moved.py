"""How cells differ in arm scores after shuffles of genes over arms, many shuffles at once.  See docs/malignancy.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop.kernels import compiled, running_sums, stretch_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy import sparse

    from nicheloop.cnv import Floats, Ints, Layout

AT_ONCE = 16  # shuffles summed in one pass over the cells
LANES = 64  # cells side by side in the kernels


def moved_products(
    x: sparse.csr_matrix, where: Layout, orders: Ints, deep: Floats, like: Ints
) -> Iterator[NDArray[np.float64]]:
    """Cross products of arm scores after each of several shuffles of genes over arms.

    The scores are `cnv_arms.scores` of all genes, without what goes with depth (`cnv_arms.without_depth`) and without
    their mean over cells.  A shuffle keeps neighbours together, so that sums over arms are differences of a few hundred
    running sums, and what is taken off is taken off the products: the scores themselves are never made.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression, all columns of the matrix.
    where
        Genes in genomic order and their arms.
    orders
        (shuffles, genes of `where`) gene whose arm each gene gets.
    deep, like
        (cells,) depth and small cluster.

    Yields
    ------
    (shuffles, arms, arms) for the next few shuffles.
    """
    cells, genes = x.shape[0], len(where.columns)
    names, code, size = where.arm_codes
    arms = len(names)
    place = np.full(x.shape[1], -1)
    place[where.columns] = np.arange(genes)
    sums = np.empty((-(-cells // LANES), genes + 1, LANES))
    compiled(running_sums)(x.indptr, x.indices, x.data, place, sums)

    own = deep - (np.bincount(like, weights=deep) / np.maximum(np.bincount(like), 1))[like]
    square = float((own**2).sum())
    wide = np.zeros((3, LANES * len(sums)))
    wide[:, :cells] = np.ones(cells), deep - deep.mean(), own
    beside = wide.reshape(3, len(sums), LANES).transpose(1, 0, 2)  # products with these give means and slopes
    turn = (np.eye(arms) - 1 / arms) / np.sqrt(size)  # sums to scores without their mean over arms
    for low in range(0, len(orders), AT_ONCE):
        given = code[orders[low : low + AT_ONCE]]
        first = np.flatnonzero(np.diff(given, axis=1, prepend=-1).ravel())
        bounds = np.searchsorted(first, np.arange(len(given) + 1) * genes)
        last = np.append(first[1:], given.size)
        start = first // genes * genes
        table = np.zeros((len(given), len(sums), arms + 3, LANES))
        table[:, :, arms:] = beside
        compiled(stretch_sums)(sums, first - start, last - start, given.ravel()[first], bounds, table)
        every = (table @ table.swapaxes(2, 3)).sum(axis=1)
        product = turn @ every[:, :arms, :arms] @ turn.T
        mean, along, slope = (every[:, arms + k, :arms] @ turn.T for k in range(3))
        product -= _outer(mean, mean) / cells
        if square > 0:
            both = _outer(along, slope)
            product -= (both + both.transpose(0, 2, 1)) / square
            product += _outer(slope, slope) * (float((wide[1] ** 2).sum()) / square**2)
        yield product


def _outer(left: Floats, right: Floats) -> Floats:
    """(n, k, k) outer products of the rows of two (n, k) matrices."""
    return left[:, :, None] * right[:, None, :]
