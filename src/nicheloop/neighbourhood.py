"""Types from a cell's own markers and from what its neighbours are.  See docs/annotate.md.

Neighbours in the integrated components take the place of clusters: there is no resolution to choose, and every cell has
its own surroundings.  How much a neighbour says is learnt from the cohort: cells of a large, tight type have
neighbours of their own type, those of a rare or poorly separated type have not, and their neighbours then count little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

NOBODY = -1  # in a table of neighbours: no further neighbour


def surroundings(table: pd.DataFrame, ids: Sequence[Any] | NDArray[Any], k: int) -> Indices:
    """Nearest other cells of every cell, from the table in which they were written down.

    Parameters
    ----------
    table
        (cells,) rows of the contract ``neighbors``.
    ids
        (cells,) cells wanted; one that is not in the table has no neighbours.
    k
        Neighbours wanted.

    Returns
    -------
    (cells, k) positions in `ids`, nearest first; -1 where there is none.
    """
    import pandas as pd

    out = np.full((len(ids), k), NOBODY, dtype=np.int64)
    columns = [c for c in table.columns if c.startswith("neighbor_")][:k]
    row_of = pd.Index(table["cell_id"]).get_indexer(ids)
    position = np.append(pd.Index(ids).get_indexer(table["cell_id"]), NOBODY)  # the last place answers for -1
    there = row_of >= 0
    for j, column in enumerate(columns):
        found = table[column].to_numpy(dtype=np.int64, na_value=NOBODY)
        out[there, j] = position[found[row_of[there]]]
    return out


def within(neighbours: Indices, index: Indices) -> Indices:
    """(len(index), k) neighbours of some of the cells that are themselves among them, renumbered; others are -1."""
    position = np.full(len(neighbours) + 1, NOBODY, dtype=np.int64)  # the last place answers for -1
    position[index] = np.arange(len(index))
    return position[neighbours[index]]


def adjacency(neighbours: Indices) -> csr_matrix:
    """(cells, cells) matrix that sums values over the neighbours of each cell; -1 adds nothing."""
    from scipy.sparse import csr_matrix

    there = neighbours != NOBODY
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return csr_matrix((np.ones(ends[-1]), neighbours[there], ends), shape=(len(neighbours), len(neighbours)))


def softened(evidence: Floats, doubt: float) -> Floats:
    """Evidence of a cell whose markers mislead with probability `doubt`: no type is further than log(doubt) behind.

    Parameters
    ----------
    evidence
        (cells, types) nats; -inf: ruled out, and stays so.
    """
    if evidence.shape[1] == 0:
        return evidence
    best = evidence.max(axis=1, keepdims=True)
    return np.asarray(np.where(np.isinf(evidence), -np.inf, best + np.logaddexp(evidence - best, np.log(doubt))))


def looks(p: Floats, graph: csr_matrix, k: int, *, own: float, cells: float) -> Floats:
    """Learn what the neighbours of each type look like.

    Parameters
    ----------
    p
        (cells, types) probabilities.
    graph
        (cells, cells) `adjacency` of the cells.
    k
        Neighbours of a cell that has all of them.
    own
        Share of neighbours expected to be of the cell's own type before anything is seen.
    cells
        How many cells that expectation is worth.

    Returns
    -------
    (types, types); row t: chances that a neighbour of a cell of type t is of each type.
    """
    n, t = p.shape
    size = p.sum(axis=0)
    frequency = (size + 0.5) / (n + 0.5 * t)
    expected = own * np.minimum(1.0, size / max(k, 1))  # three cells cannot surround each other with fifteen
    counts = p.T @ (graph @ p) / max(k, 1)
    counts += cells * (np.diag(expected) + (1 - expected)[:, None] * frequency[None, :])
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def posterior(
    evidence: Floats,
    neighbours: Indices,
    *,
    weight: float,
    doubt: float,
    own: float,
    cells: float,
    temperature: float,
    rounds: int,
    tolerance: float,
) -> Floats:
    """Probability of each type for each cell, from its evidence and its neighbours.

    With evidence L, neighbours j of cell i, probabilities p, type frequencies f and M = `looks`:

        score(i, t) = softened L(i, t) + log f(t) + weight * sum_j log( sum_u M(t, u) p(j, u) )
        p(i, t) proportional to exp(score(i, t))

    repeated to a fixed point, half a step at a time.

    Parameters
    ----------
    evidence
        (cells, types) nats; -inf: ruled out.
    neighbours
        (cells, k); -1: none.
    weight
        Weight of one neighbour; below 1 because neighbours are no independent witnesses.
    doubt, own, cells
        See `softened` and `looks`.
    temperature
        What scores are divided by in the probabilities returned (the rounds use 1).
    rounds, tolerance
        Most rounds; stop when no probability moves by more.

    Returns
    -------
    (cells, types), rows add up to 1.
    """
    from scipy.special import softmax

    base = softened(evidence, doubt)
    n, t = base.shape
    if n == 0 or t == 0:
        return np.zeros((n, t))
    # Neighbours are mostly of one type: cells stand by type here, so that rows summed together are near in memory.
    order = np.argsort(base.argmax(axis=1), kind="stable")
    base = base[order]
    p: Any = softmax(base, axis=1)
    score, graph, k = base, adjacency(within(neighbours, order)), neighbours.shape[1]
    for _ in range(rounds):
        chances = np.log(p @ looks(p, graph, k, own=own, cells=cells).T)
        score = base + np.log((p.sum(axis=0) + 0.5) / (n + 0.5 * t)) + weight * (graph @ chances)
        new = (p + softmax(score, axis=1)) / 2
        done = np.abs(new - p).max() < tolerance
        p = new
        if done:
            break
    out = np.empty_like(score)
    out[order] = softmax(score / temperature, axis=1)
    return out
