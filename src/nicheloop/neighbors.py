"""Geometry of cells shared by qc and embed: principal axes, nearest neighbours, the fuzzy graph.  See docs/embed.md.

Nothing here but one short loop compiles at run time: scanpy's way to the same numbers spends up to a minute per
process on that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import kernels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BLOCK = 2048  # cells worked on at a time
PARTS = 2  # sums of the Gram matrix taken side by side
QUERIES = 8192  # cells looked up in one call of faiss: whole blocks of its own


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run BLAS and faiss on one thread: sums in another order would change the last bits, and then clusters."""
    import faiss
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded before it can be limited)
    from threadpoolctl import threadpool_limits

    before = faiss.omp_get_max_threads()
    with threadpool_limits(limits=1):
        faiss.omp_set_num_threads(1)
        try:
            yield
        finally:
            faiss.omp_set_num_threads(before)


def gram(matrices: Iterable[csr_matrix], n_genes: int, threads: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Sum what principal components need over cells; nothing is made dense but the result.

    Parameters
    ----------
    matrices
        Sparse (cells, genes), one after the other.
    n_genes
        Columns of each.
    threads
        Above 1, products are taken in threads while the next matrix is read; the sums are the same, to the last bit.

    Returns
    -------
    The (genes, genes) Gram matrix X'X, the (genes,) column sums and the number of cells.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    add_pairs = kernels.compiled(kernels.add_pairs)
    # every other block has a sum of its own, whatever the threads: the order of addition is part of the result
    totals = [np.zeros((n_genes, n_genes)) for _ in range(PARTS)]
    before: list[Future[None] | None] = [None] * PARTS
    sums, n, i = np.zeros(n_genes), 0, 0

    def add(part: int, block: csr_matrix) -> None:
        block = block.astype(np.float64)  # one form, compiled once
        block.sum_duplicates()
        by_gene = block.tocsc()
        first = block.indptr[:-1].astype(np.int64)
        add_pairs(
            by_gene.indices, by_gene.data, by_gene.indptr, block.indptr, block.indices, block.data, first, totals[part]
        )

    with ThreadPoolExecutor(max(1, min(threads, PARTS))) as pool:
        for x in matrices:
            for start in range(0, x.shape[0], BLOCK):  # stays in the cache while genes take their turns
                block, part = x[start : start + BLOCK], i % PARTS
                if (last := before[part]) is not None:
                    last.result()
                before[part] = pool.submit(add, part, block)
                i += 1
            sums += np.bincount(x.indices, x.data, n_genes)  # scipy would add in single precision
            n += x.shape[0]
        for last in before:
            if last is not None:
                last.result()
    upper = sum(totals[1:], start=totals[0])
    return upper + np.triu(upper, 1).T, sums, n


def fix_signs(loadings: np.ndarray) -> np.ndarray:
    """Flip components so that the entry of largest size is positive; (genes, components) in and out."""
    if loadings.size == 0:
        return loadings
    top = loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])]
    return loadings * np.where(top < 0, -1.0, 1.0)


def principal_axes(total: np.ndarray, sums: np.ndarray, n: int, n_pcs: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact principal components from a Gram matrix.

    Parameters
    ----------
    total, sums, n
        As `gram` returns them.
    n_pcs
        Components wanted; at most ``min(n - 1, genes)`` are given.

    Returns
    -------
    (genes, components) loadings of unit length, largest entry positive, and the (components,) variances (n - 1),
    in falling order.
    """
    from scipy.linalg import eigh

    genes = len(sums)
    k = max(0, min(n_pcs, n - 1, genes))
    if k == 0:
        return np.zeros((genes, 0)), np.zeros(0)
    covariance = (total - np.outer(sums, sums / n)) / (n - 1)
    values, vectors = eigh(covariance, lower=False, subset_by_index=[genes - k, genes - 1])
    return fix_signs(vectors[:, ::-1]), np.maximum(values[::-1], 0.0)


def search(
    x: np.ndarray, k: int, *, exact: bool = True, threads: int = 1, queries: np.ndarray | None = None
) -> np.ndarray:
    """(cells, k) positions of the nearest cells, themselves included, by faiss; call it within `one_thread`.

    With `queries` (others, components) those of the cells nearest to each of them.  Exact by comparison with all cells,
    else from an HNSW index (10.1109/TPAMI.2018.2889473).  With `threads` above 1 parts are looked up side by side; the
    parts are the same, and the result.
    """
    from concurrent.futures import ThreadPoolExecutor

    import faiss

    x = np.ascontiguousarray(x, dtype=np.float32)
    index: Any = faiss.IndexFlatL2(x.shape[1]) if exact else faiss.IndexHNSWFlat(x.shape[1], 32)
    if not exact:
        index.hnsw.efConstruction = 100
        index.hnsw.efSearch = max(100, 2 * k)
    index.add(x)
    asked = x if queries is None else np.ascontiguousarray(queries, dtype=np.float32)

    def look_up(start: int) -> np.ndarray:
        faiss.omp_set_num_threads(1)  # counts for the thread that says it
        found: np.ndarray = index.search(asked[start : start + QUERIES], k)[1].astype(np.int64)
        return found

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate([np.empty((0, k), np.int64), *pool.map(look_up, range(0, len(asked), QUERIES))])


def nearest(
    x: np.ndarray, k: int, *, exact: bool = True, spare: int = 8, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours of every cell, the cell itself first.

    Parameters
    ----------
    x
        (cells, components) coordinates.
    k
        Neighbours including the cell itself; shrunk to the number of cells.
    exact
        Compare with all cells; otherwise an HNSW index (approximate).
    spare
        Further candidates fetched in single precision, so that the order in double precision decides.
    threads
        The result is the same.

    Returns
    -------
    (cells, k) positions and (cells, k) Euclidean distances, sorted by distance and then position.
    """
    n = len(x)
    k = min(k, n)
    found = search(x, min(k + spare, n), exact=exact, threads=threads)
    own = np.arange(n)
    indices, distances = np.empty((n, k), dtype=np.int64), np.empty((n, k))
    for start in range(0, n, BLOCK):
        rows = own[start : start + BLOCK, None]
        near = found[start : start + BLOCK]
        near = np.where(near < 0, rows, near)  # an HNSW index may return fewer
        missing = ~(near == rows).any(axis=1)
        near[missing, -1] = rows[missing, 0]  # many cells at the same place
        square = ((x[near].astype(np.float64) - x[rows]) ** 2).sum(axis=2)
        repeated = (near == rows) & (np.cumsum(near == rows, axis=1) > 1)
        square[near == rows] = -1.0
        square[repeated] = np.inf
        order = np.lexsort((near, square), axis=1)[:, :k]
        indices[start : start + BLOCK] = np.take_along_axis(near, order, axis=1)
        distances[start : start + BLOCK] = np.sqrt(np.maximum(np.take_along_axis(square, order, axis=1), 0.0))
    indices[np.isinf(distances)] = -1
    return indices, distances


TOLERANCE, HALVINGS, FLOOR = 1e-5, 64, 1e-3  # of the search for a cell's scale, as in umap-learn


def scales(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale of every cell's weights in UMAP's graph (arXiv:1802.03426, algorithm 3).

    Parameters
    ----------
    distances
        (cells, k) as `nearest` returns them, the cell itself first; infinite: no such neighbour.

    Returns
    -------
    (cells,) distance to the nearest cell that is not at the same place (0: there is none), and the (cells,) scale at
    which the weights of a cell's neighbours add up to log2(k), at least a thousandth of their mean distance.
    """
    there = np.isfinite(distances)
    apart = np.where(there & (distances > 0), distances, np.inf).min(axis=1)
    offset = np.where(np.isinf(apart), 0.0, apart)
    beyond = np.maximum(distances[:, 1:] - offset[:, None], 0.0)
    wanted = np.log2(distances.shape[1])
    low, high, scale = np.zeros(len(distances)), np.full(len(distances), np.inf), np.ones(len(distances))
    rows = np.arange(len(distances))
    for _ in range(HALVINGS):
        excess = np.exp(-beyond / scale[rows, None]).sum(axis=1) - wanted
        left = np.abs(excess) >= TOLERANCE
        rows, beyond, above = rows[left], beyond[left], excess[left] > 0
        if not len(rows):
            break
        high[rows[above]], low[rows[~above]] = scale[rows[above]], scale[rows[~above]]
        unbounded = np.isinf(high[rows])
        scale[rows] = np.where(unbounded, 2 * scale[rows], (low[rows] + np.where(unbounded, 0.0, high[rows])) / 2)
    mean = np.where(there, distances, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return offset, np.maximum(scale, FLOOR * mean)


def fuzzy_graph(indices: np.ndarray, distances: np.ndarray) -> csr_matrix:
    """Weighted neighbour graph as scanpy and UMAP build it (fuzzy simplicial set, union of both directions).

    umap-learn's own function needs 9 s of imports and compilation in every process.

    Parameters
    ----------
    indices, distances
        As `nearest` returns them.

    Returns
    -------
    (cells, cells) symmetric CSR of weights in (0, 1], without a diagonal.
    """
    from scipy.sparse import csr_matrix

    n = len(indices)
    if n < 2:
        return csr_matrix((n, n))
    weights = np.empty(indices.shape, dtype=np.float32)
    for start in range(0, n, BLOCK):
        part = distances[start : start + BLOCK]
        offset, scale = scales(part)
        weights[start : start + BLOCK] = np.exp(-np.maximum(part - offset[:, None], 0.0) / scale[:, None])
    there = (indices >= 0) & (indices != np.arange(n)[:, None])
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    one = csr_matrix((weights[there], indices[there], ends), shape=(n, n))
    one.sort_indices()
    other = one.T.tocsr()
    graph = csr_matrix(one + other - one.multiply(other))
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph
