"""Cells alike in expression: neighbours, and clusters joined where copy number agrees.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import cnv_groups, lean, neighbors
from nicheloop.kernels import column_moments, mean_of_rows

if TYPE_CHECKING:
    from scipy import sparse

    from nicheloop.cnv import Floats, Ints, Layout

BIN = 100  # genes of like mean whose median variance is the expected one


def variable_genes(x: sparse.csr_matrix, along: Ints, n: int) -> Ints:
    """Columns whose variance is largest relative to genes of like mean, in the order of `along`.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    along
        (genes,) columns in an order that depends on their names alone: it decides between equals.
    n
        Genes wanted; genes seen in fewer than three cells are never chosen.
    """
    seen, mean, square = (values[along].astype(np.float64) for values in column_moments(x))
    variance = square - mean**2
    used = np.flatnonzero((seen >= 3) & (variance > 0))
    order = used[np.argsort(mean[used], kind="stable")]
    score = np.zeros(x.shape[1])
    for first in range(0, len(order), BIN):
        part = order[first : first + BIN]
        score[part] = variance[part] / np.median(variance[part])
    return along[np.sort(order[np.argsort(-score[order], kind="stable")[:n]])]


def coordinates(x: sparse.csr_matrix, along: Ints, n_genes: int, n_components: int) -> Floats:
    """(cells, components) principal component scores of the variable genes, each cell scaled to unit length.

    Unit length: the scores of a shallow cell scatter further, which must not decide who its neighbours are.
    """
    chosen = variable_genes(x, along, n_genes)
    if x.shape[0] < 3 or len(chosen) < 2:
        return np.zeros((x.shape[0], 1))
    part = x[:, chosen]
    with neighbors.one_thread():
        total, sums, n = neighbors.gram([part], len(chosen))
        loadings, _ = neighbors.principal_axes(total, sums, n, n_components)
        scores = np.asarray(part @ loadings) - (sums / n) @ loadings
    length = np.sqrt((scores**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(scores, length, out=np.zeros_like(scores), where=length > 0))


@dataclass(frozen=True)
class Neighbourhood:
    """Cells and who is like them.

    Attributes
    ----------
    indices : (cells, k) positions of the nearest cells, the cell itself first; -1 where there are fewer
    atoms : (cells,) small cluster of each cell, 0, 1, ...
    """

    indices: Ints
    atoms: Ints


def neighbourhood(
    x: sparse.csr_matrix,
    along: Ints,
    *,
    n_genes: int,
    n_components: int,
    k: int,
    resolution: float,
    min_cells: int,
    seed: int,
) -> Neighbourhood:
    """Nearest neighbours in expression, and small clusters of them (Leiden, doi:10.1038/s41598-019-41695-z).

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression, cells in an order that depends on their names alone.
    along
        (genes,) columns in such an order.
    n_genes, n_components, k
        Variable genes, principal components, neighbours without the cell itself.
    resolution, min_cells, seed
        Of the clusters; smaller clusters join the nearest one.
    """
    at = coordinates(x, along, n_genes, n_components)
    n = len(at)
    with neighbors.one_thread():
        indices, _ = neighbors.nearest(at, k + 1)
    if n < 2 * min_cells:
        return Neighbourhood(indices, np.zeros(n, dtype=np.int64))
    with lean.without("matplotlib"):
        import igraph
        import leidenalg

    pairs = np.column_stack([np.repeat(np.arange(n), indices.shape[1] - 1), indices[:, 1:].ravel()])
    pairs = pairs[pairs[:, 1] >= 0]
    graph: Any = igraph.Graph(n=n, edges=np.unique(np.sort(pairs, axis=1), axis=0))
    partition = leidenalg.find_partition(
        graph, leidenalg.RBConfigurationVertexPartition, resolution_parameter=resolution, seed=seed
    )
    atoms = np.array(partition.membership, dtype=np.int64)
    while True:
        names, sizes = np.unique(atoms, return_counts=True)
        if len(names) == 1 or sizes.min() >= min_cells:
            break
        small = names[np.argmin(sizes)]
        centres = np.array([at[atoms == a].mean(axis=0) for a in names])
        distance = ((centres - centres[names == small]) ** 2).sum(axis=1)
        distance[names == small] = np.inf
        atoms[atoms == small] = names[np.argmin(distance)]
    return Neighbourhood(indices, np.unique(atoms, return_inverse=True)[1])


def pooled(values: Floats, indices: Ints) -> Floats:
    """Mean of each cell's neighbours, the cell itself left out; its own value where it has none.

    Parameters
    ----------
    values
        (cells,) or (cells, columns).
    indices
        (cells, k), the cell itself first, -1 where missing.
    """
    others = indices[:, 1:]
    weight = (others >= 0).astype(np.float64)
    n = weight.sum(axis=1)
    if values.ndim == 1:
        total = (values[others] * weight).sum(axis=1)
    else:
        total, n = np.einsum("ckw,ck->cw", values[others], weight), n[:, None]
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), values))


def join_atoms(
    x: sparse.csr_matrix, atoms: Ints, where: Layout, settings: cnv_groups.Settings, max_p: float, min_ratio: float
) -> Ints:
    """Join small clusters whose difference does not follow chromosome arms, the likest first.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    atoms
        (cells,) small cluster.
    where, settings, max_p, min_ratio
        Genes in genomic order; the test; p at most, and arm coherence at least, where clusters differ in copy number.

    Returns
    -------
    (cells,) group, 0, 1, ...
    """
    atoms = atoms.copy()
    mean = {int(a): mean_of_rows(x, np.flatnonzero(atoms == a)) for a in np.unique(atoms)}
    size = {a: int((atoms == a).sum()) for a in mean}
    tested: dict[tuple[int, int], tuple[float, bool]] = {}
    while len(mean) > 1:
        names = sorted(mean)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if (a, b) not in tested:
                    shift, n = cnv_groups.arm_means(mean[a], mean[b], where, settings)
                    shift = shift - np.average(shift, weights=n)
                    distance = float((shift**2 * n).sum()) * size[a] * size[b] / (size[a] + size[b])
                    tested[a, b] = distance, False
        for a, b in sorted(tested, key=lambda pair: (tested[pair][0], pair)):
            distance, differ = tested[a, b]
            if differ:
                continue
            found = cnv_groups.arm_evidence(mean[a], mean[b], where, settings)
            if found.p <= max_p and found.ratio >= min_ratio:
                tested[a, b] = distance, True
                continue
            mean[a] = (mean[a] * size[a] + mean[b] * size[b]) / (size[a] + size[b])
            size[a] += size[b]
            atoms[atoms == b] = a
            del mean[b], size[b]
            tested = {pair: v for pair, v in tested.items() if a not in pair and b not in pair}
            break
        else:
            break
    return np.unique(atoms, return_inverse=True)[1]
