"""The map of cells: UMAP's stochastic layout of a neighbour graph.  See docs/embed.md.

The algorithm is umap-learn's (arXiv:1802.03426), which is the oracle of the tests.  Written out because importing and
compiling umap-learn costs every process more than laying out a few ten thousand cells; this loop is compiled once and
kept on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEGATIVE = 5  # far cells per edge: UMAP's negative_sample_rate
SIDE = 10.0  # extent of the start


def lay_out(
    y: Any, head: Any, tail: Any, period: Any, a: float, b: float, n_epochs: int, negative: int, state: Any
) -> None:
    """Move the points y (cells, 2) in place: along each edge every `period` epochs, away from random points between.

    One thread and one stream of random numbers (xorshift64*, `state` (1,) uint64), so that a seed gives one map.
    """
    n = np.uint64(y.shape[0])
    s12, s25, s27, s32 = np.uint64(12), np.uint64(25), np.uint64(27), np.uint64(32)
    multiplier, low32 = np.uint64(2685821657736338717), np.uint64(0xFFFFFFFF)
    limit = np.float32(4.0)  # UMAP clips each coordinate of a gradient
    one, small, zero = np.float32(1.0), np.float32(0.001), np.float32(0.0)
    fa, fb = np.float32(a), np.float32(b)
    pull, push = np.float32(-2.0 * a * b), np.float32(2.0 * b)
    next_edge = period.copy()
    next_far = period / negative
    random = state[0]
    for epoch in range(n_epochs):
        alpha = np.float32(1.0 - epoch / n_epochs)
        for edge in range(head.size):
            if next_edge[edge] > epoch:
                continue
            i, j = head[edge], tail[edge]
            x0, x1 = y[i, 0], y[i, 1]
            d0, d1 = x0 - y[j, 0], x1 - y[j, 1]
            square = d0 * d0 + d1 * d1
            if square > zero:
                power = square**fb
                strength = pull * power / (square * (fa * power + one))
                g0 = min(max(strength * d0, -limit), limit) * alpha
                g1 = min(max(strength * d1, -limit), limit) * alpha
                x0 += g0
                x1 += g1
                y[j, 0] -= g0
                y[j, 1] -= g1
            next_edge[edge] += period[edge]
            each = period[edge] / negative
            draws = int((epoch - next_far[edge]) / each)
            for _ in range(draws):
                random ^= random >> s12
                random ^= random << s25
                random ^= random >> s27
                k = np.int64((((random * multiplier) >> s32) & low32) * n >> s32)
                if k == i:
                    continue
                d0, d1 = x0 - y[k, 0], x1 - y[k, 1]
                square = d0 * d0 + d1 * d1
                if square > zero:
                    strength = push / ((small + square) * (fa * square**fb + one))
                    x0 += min(max(strength * d0, -limit), limit) * alpha
                    x1 += min(max(strength * d1, -limit), limit) * alpha
            y[i, 0], y[i, 1] = x0, x1
            next_far[edge] += draws * each
    state[0] = random


def curve(min_dist: float, spread: float = 1.0) -> tuple[float, float]:
    """A and b of 1 / (1 + a d^2b), fitted to 1 up to `min_dist` and an exponential fall of scale `spread` beyond."""
    from scipy.optimize import curve_fit

    d = np.linspace(0, 3 * spread, 300)
    wanted = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    (a, b), _ = curve_fit(lambda x, a, b: 1.0 / (1.0 + a * x ** (2 * b)), d, wanted)
    return float(a), float(b)


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
        Of the far cells, and of a start jitter that parts cells at the same place.

    Returns
    -------
    (cells, 2) coordinates.  Fewer than five cells keep their first two components.
    """
    start = np.ascontiguousarray(components[:, :2], dtype=np.float64)
    if len(start) < 5:
        return start
    from nicheloop import kernels

    rng = np.random.default_rng(seed)
    spread = np.ptp(start, axis=0)
    y = SIDE * (start - start.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    y = np.ascontiguousarray(y + rng.normal(0, 1e-4, y.shape), dtype=np.float32)
    edges = graph.tocoo()
    weight = edges.data / edges.data.max()
    kept = weight >= 1.0 / n_epochs  # UMAP drops edges it would never visit
    a, b = curve(min_dist)
    state = np.array([rng.integers(1, 2**63)], dtype=np.uint64)
    kernels.compiled(lay_out)(
        y, edges.row[kept].astype(np.int32), edges.col[kept].astype(np.int32),
        (1.0 / weight[kept]).astype(np.float32), a, b, n_epochs, NEGATIVE, state,
    )  # fmt: skip
    return y.astype(np.float64)
