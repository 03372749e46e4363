"""Sums of populations under permuted cells: compiled where that pays, else one sparse product (docs/crosstalk.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nicheloop import permutation

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
BLOCK = 4_000_000  # elements of the dense block of permuted indicators; results do not depend on it
COMPILED = 120_000_000  # non-zeros x permutations from which loading numba (0.6 to 1.2 s) pays; nor do they on this
LOADED = 10_000_000  # the same where it is loaded already: then only kernels are fetched from disk (0.1 s)


def permuted_sums(
    x: csr_matrix, totals: Floats, masks: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield counts and cells with a count (permutations, populations, genes), and library sizes, under permuted cells.

    One permutation moves all populations together, so their sizes and overlaps (csc_high within malignant) are kept.
    Both ways draw the same permutations and give the same bytes for whole counts.
    """
    if x.nnz * n >= (LOADED if "numba" in sys.modules else COMPILED):
        yield from permutation.population_sums(x, totals, masks, n, rng)
        return
    from scipy.sparse import hstack

    cells, width = masks.shape
    both = hstack([x, (x > 0).astype(np.float64)], format="csr")  # one product for counts and cells with a count
    step = max(1, BLOCK // max(1, cells * width))
    indicator = masks.astype(np.float64)
    for start in range(0, n, step):
        count = min(step, n - start)
        order = np.stack([rng.permutation(cells) for _ in range(count)], axis=1)  # one by one: blocks do not matter
        weights = indicator[order].reshape(cells, count * width)
        sums = np.asarray((both.T @ weights).T).reshape(count, width, -1)
        yield sums[..., : x.shape[1]], sums[..., x.shape[1] :], np.asarray(totals @ weights).reshape(count, width)
