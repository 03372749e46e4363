"""One number per cell and chromosome arm: where a shallow cell shows its copy number best.  See docs/malignancy.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from nicheloop.kernels import dense_product

if TYPE_CHECKING:
    from nicheloop.cnv import Floats, Ints, Layout


def scores(x: sparse.csr_matrix, where: Layout, which: int | None = None) -> Floats:
    """Mean expression of each arm's genes times the root of their number, minus the cell's mean over arms.

    Windows overlap and clip single genes; a shallow cell has neither molecules nor genes to spare for that.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression, all columns of the matrix.
    where
        Genes in genomic order and their arms.
    which
        0 or 1: only the even or the odd genes of `where`; all without it.

    Returns
    -------
    (cells, arms) arms in sorted order, weighted by how well they are measured.  Linear in `x`.
    """
    used = np.ones(len(where.columns), dtype=bool) if which is None else np.arange(len(where.columns)) % 2 == which
    names, arm, _ = where.arm_codes
    n = np.bincount(arm[used], minlength=len(names))
    rows, arm = where.columns[used], arm[used]
    weights = sparse.csr_matrix((1 / np.sqrt(n[arm]), (rows, arm)), shape=(x.shape[1], len(names)))
    out = dense_product(sparse.csr_matrix(x), weights)
    return np.asarray(out - out.mean(axis=1, keepdims=True))


def depth(x: sparse.csr_matrix) -> Floats:
    """(cells,) log of the number of genes seen."""
    return np.asarray(np.log(np.maximum(np.diff(x.indptr), 1)), dtype=np.float64)


def without_depth(values: Floats, deep: Floats, like: Ints) -> Floats:
    """Take off what goes with depth among like cells: the logarithm leaves arms different at each depth.

    Parameters
    ----------
    values, deep
        (cells, arms), and (cells,) depth.
    like
        (cells,) small cluster or type: the slope is that within them, so a tumour that is deeper than normal epithelium
        keeps its difference.
    """
    n = np.maximum(np.bincount(like), 1)
    own = deep - (np.bincount(like, weights=deep) / n)[like]
    square = float((own**2).sum())
    if square <= 0:
        return values
    slope = own @ values / square  # `own` sums to zero within each cluster: its mean needs no removing from values
    return np.asarray(values - np.outer(deep - deep.mean(), slope))
