"""Copy-number profiles of cells from expression, in sliding windows.  See docs/malignancy.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from nicheloop.kernels import add_ratios, compiled

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Ints = NDArray[np.integer]
    Bools = NDArray[np.bool_]

AUTOSOMES = tuple(f"chr{i}" for i in range(1, 23))
BLOCK = 512  # cells whose windows are made at a time


@dataclass(frozen=True)
class Layout:
    """Genes in genomic order and the windows over them.

    Attributes
    ----------
    columns : (genes,) int, columns of the expression matrix, by chromosome and start
    arms : (genes,) str, arm of each gene
    weights : (genes, windows) CSC, pyramid weights that sum to 1 per window
    chromosome, arm : (windows,) str; arm of the window's middle gene
    start, end : (windows,) int, bp
    """

    columns: Ints
    arms: NDArray[np.object_]
    weights: sparse.csc_matrix
    chromosome: NDArray[np.object_]
    arm: NDArray[np.object_]
    start: Ints
    end: Ints

    @cached_property
    def arm_codes(self) -> tuple[NDArray[np.str_], Ints, Ints]:
        """Names of the arms, sorted; (genes,) position of each gene's arm among them; genes of each."""
        return np.unique(self.arms.astype(str), return_inverse=True, return_counts=True)


def _pyramid(n: int) -> Floats:
    r = np.arange(1, n + 1)
    weights = np.minimum(r, r[::-1]).astype(np.float64)
    return np.asarray(weights / weights.sum())


def layout(positions: pd.DataFrame, window: int, step: int) -> Layout:
    """Place genes and windows on the autosomes.

    Parameters
    ----------
    positions
        One row per column of the matrix, in its order: chromosome (``chr1``), start, end (bp), arm (``1q``); index: the
        symbol.  Rows with another chromosome or a missing position are left out.
    window, step
        Genes in a window and between windows.  A chromosome with no more genes than the window gets one flat window.
    """
    chromosome = positions["chromosome"].to_numpy(dtype=object)
    first = positions["start"].to_numpy(dtype=np.float64)
    last = positions["end"].to_numpy(dtype=np.float64)
    arm = positions["arm"].to_numpy(dtype=object)
    symbol = positions.index.to_numpy(dtype=object).astype(str)
    columns, blocks, rows = [], [], []
    for name in AUTOSOMES:
        here = np.flatnonzero((chromosome == name) & np.isfinite(first))
        if len(here) == 0:
            continue
        here = here[np.lexsort((symbol[here], first[here]))]  # ties by symbol: never by the order of columns
        n = len(here)
        if n > window:
            offsets = np.arange(0, n - window + 1, step)
            kernel = _pyramid(window)
        else:
            offsets, kernel = np.array([0]), np.full(n, 1.0 / n)
        index = offsets[:, None] + np.arange(len(kernel))
        data = np.tile(kernel, len(offsets))
        indptr = np.arange(len(offsets) + 1) * len(kernel)
        blocks.append(sparse.csc_matrix((data, index.ravel(), indptr), shape=(n, len(offsets))))
        for i in index:
            genes = here[i]
            rows.append((name, arm[genes[len(genes) // 2]], int(first[genes].min()), int(last[genes].max())))
        columns.append(here)
    if not columns:
        empty = np.array([], dtype=object)
        none = np.array([], dtype=np.int64)
        return Layout(none, empty, sparse.csc_matrix((0, 0)), empty, empty, none, none)
    order = np.concatenate(columns)
    names, arms, starts, ends = zip(*rows, strict=True)
    return Layout(
        order,
        arm[order],
        sparse.csc_matrix(sparse.block_diag(blocks, format="csc")),
        np.array(names, dtype=object),
        np.array(arms, dtype=object),
        np.array(starts, dtype=np.int64),
        np.array(ends, dtype=np.int64),
    )


def subset(where: Layout, keep: Bools, positions: pd.DataFrame, window: int, step: int) -> Layout:
    """Lay out again with some of the genes, `keep` (genes,) in layout order; columns still refer to the full matrix."""
    columns = where.columns[keep]
    small = layout(positions.iloc[columns], window, step)
    return Layout(
        columns[small.columns], small.arms, small.weights, small.chromosome, small.arm, small.start, small.end
    )


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n)."""
    for first in range(0, n, size):
        yield slice(first, min(n, first + size))


def smooth(x: sparse.csr_matrix, reference: Floats, where: Layout, clip: float) -> Floats:
    """Smoothed log ratio of each cell to the reference, centred on the cell's median.

    The computation of ``infercnvpy.tl.infercnv`` before noise filtering (Sturm 2022, after Tirosh 2016,
    doi:10.1126/science.aad0501), a block of cells at a time.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    reference
        (genes,) or (types, genes) mean of the reference; with several rows, values between the smallest and the largest
        count as no difference.
    where
        Windows; see `layout`.
    clip
        Log ratios are clipped to [-clip, clip].

    Returns
    -------
    (cells, windows) float32 log ratio.
    """
    out = np.empty((x.shape[0], where.weights.shape[1]), dtype=np.float32)
    for part, sums in _window_sums(x, reference, where, [where.weights], clip):
        out[part] = _centred(sums)
    return out


def halves_differ(x: sparse.csr_matrix, reference: Floats, where: Layout, clip: float) -> Floats:
    """(cells, windows) float32 `smooth` over the even genes minus that over the odd ones, in one pass; see `half`."""
    n = where.weights.shape[1]
    out = np.empty((x.shape[0], n), dtype=np.float32)
    for part, sums in _window_sums(x, reference, where, [half(where, k).weights for k in (0, 1)], clip):
        out[part] = _centred(sums[:, :n])
        out[part] -= _centred(sums[:, n:])
    return out


def _centred(sums: Floats) -> Floats:
    return np.asarray(sums - np.median(sums, axis=1, keepdims=True)).astype(np.float32)


def _window_sums(
    x: sparse.csr_matrix, reference: Floats, where: Layout, weights: list[sparse.csc_matrix], clip: float
) -> Iterator[tuple[slice, Floats]]:
    """Weighted sums of clipped log ratios over each of several sets of windows, side by side, a block of cells each."""
    columns = where.columns
    if not (x.has_sorted_indices and (np.diff(columns) > 0).all()):
        x = sparse.csr_matrix(x[:, columns])
        x.sort_indices()  # sums in genomic order, whatever the order of columns
        reference, columns = np.atleast_2d(reference)[:, columns], np.arange(len(columns))
    place = np.full(x.shape[1], -1)
    place[columns] = np.arange(len(columns))
    reference = np.atleast_2d(reference)[:, columns].astype(np.float64)
    low, high = reference.min(axis=0), reference.max(axis=0)
    # Only genes seen in a cell differ from what an empty cell has: no cell is made dense over genes.
    unseen = np.clip(-np.clip(0.0, low, high), -clip, clip)
    ground = np.concatenate([w.T @ unseen for w in weights])
    rows = sparse.csr_matrix(sparse.hstack(weights))
    for part in blocks(x.shape[0]):
        sums = np.zeros((part.stop - part.start, rows.shape[1]))
        compiled(add_ratios)(
            x.indptr[part.start : part.stop + 1], x.indices, x.data, place, low, high, unseen, float(clip), rows.indptr,
            rows.indices, rows.data, sums,
        )  # fmt: skip
        sums += ground
        yield part, sums


def denoise(profiles: Floats, threshold: float) -> Floats:
    """Set values below `threshold` standard deviations (over cells and windows) to zero: infercnvpy's last step."""
    if profiles.size == 0:
        return profiles.copy()
    out = profiles.copy()
    out[np.abs(out) < threshold * np.std(profiles, dtype=np.float64)] = 0
    return out


def half(where: Layout, which: int) -> Layout:
    """Return the same windows over every other gene (`which` 0 or 1); weights sum to 1 again, or 0 without a gene."""
    keep = (np.arange(len(where.columns)) % 2 == which).astype(np.float64)
    weights = sparse.csc_matrix(sparse.diags_array(keep) @ where.weights)
    total = np.asarray(weights.sum(axis=0)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return replace(where, weights=sparse.csc_matrix(weights @ sparse.diags_array(scale)))


def signal_to_noise(profiles: Floats, halves_differ: Floats) -> Floats:
    """Mean square of each profile over the cell's own noise; used to rank cells, never to call them.

    Wu 2021 (doi:10.1038/s41588-021-00911-1) ranks by the mean square alone, which grows as depth falls.

    Parameters
    ----------
    profiles
        (cells, windows).
    halves_differ
        (cells, windows) profile from half of the genes minus that from the rest, centred within like cells.

    Returns
    -------
    (cells,) ratio, about 1 without signal; 0 where there is no noise to compare with (a cell without counts).
    """
    if profiles.shape[1] == 0:
        return np.zeros(len(profiles))
    square = np.mean(profiles.astype(np.float64) ** 2, axis=1)
    noise = np.mean(halves_differ.astype(np.float64) ** 2, axis=1) / 4
    return np.asarray(np.divide(square, noise, out=np.zeros(len(square)), where=noise > 0))


def left_out_mean(values: Floats, members: Bools) -> Floats:
    """(cells, windows) mean of `members`, the cell itself left out."""
    total, n = values[members].sum(axis=0), int(members.sum())
    return np.asarray(np.where(members[:, None], total - values, total) / (n - members)[:, None])


def amplitude(profiles: Floats, members: Bools) -> Floats:
    """Length of each cell's projection on the mean profile of `members` (the cell left out); the members' median is 1.

    Parameters
    ----------
    profiles
        (cells, windows).
    members
        (cells,) cells that define the mean; at least two.

    Returns
    -------
    (cells,) 0: no signal, 1: a typical member.  Its expectation does not depend on depth, its spread does.  All 0 where
    the members do not agree with each other.
    """
    values = profiles.astype(np.float64)
    mean = left_out_mean(values, members)
    square = (mean**2).sum(axis=1)
    raw = np.divide((values * mean).sum(axis=1), square, out=np.zeros(len(values)), where=square > 0)
    typical = float(np.median(raw[members]))
    return np.asarray(raw / typical) if typical > 0 else np.zeros(len(values))


def correlations(profiles: Floats, groups: list[Bools]) -> Floats:
    """Pearson correlation of each cell with the mean profile of each group, the cell itself always left out.

    Leaving the cell out matters: a cell is correlated with a mean that contains it, and the more so the fewer members.

    Parameters
    ----------
    profiles
        (cells, windows).
    groups
        (cells,) each: the cells that define a mean; at least two.

    Returns
    -------
    (groups, cells) in [-1, 1]; 0 for a flat profile.
    """
    centred = profiles.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    own = np.einsum("cw,cw->c", centred, centred)
    out = np.empty((len(groups), len(centred)))
    for found, members in zip(out, groups, strict=True):
        theirs = centred[members]
        total = theirs.sum(axis=0)
        norm, product = own * (total @ total), centred @ total
        others = total - theirs
        norm[members] = own[members] * np.einsum("cw,cw->c", others, others)
        product[members] = np.einsum("cw,cw->c", others, theirs)
        np.sqrt(norm, out=norm)
        found[:] = np.divide(product, norm, out=np.zeros(len(norm)), where=norm > 0)
    return np.clip(out, -1, 1)


def folds(cell_ids: NDArray[np.object_], n: int) -> Ints:
    """(cells,) fold of each cell: its rank among the sorted ids modulo `n`, so file order does not matter."""
    rank = np.empty(len(cell_ids), dtype=np.int64)
    rank[np.argsort(cell_ids.astype(str), kind="stable")] = np.arange(len(cell_ids))
    return rank % n


def cut_at(null: Floats, rate: float) -> float:
    """Smallest cut that at most `rate` of the null values exceed (strictly)."""
    ordered = np.sort(np.asarray(null, dtype=np.float64))[::-1]
    return float(ordered[int(np.floor(rate * len(ordered)))])


def held_out_cuts(null: Floats, rate: float) -> Floats:
    """(cells,) cut of all other null cells, for each null cell, at the rank of `cut_at`.

    A fresh cell exceeds the cut of n cells with probability (k + 1) / (n + 1), k = floor(rate n).  A null cell exceeds
    its own in (k + 1) / n of the cases: the same rank keeps the two together.
    """
    values = np.asarray(null, dtype=np.float64)
    n = len(values)
    if n < 2:
        return np.full(n, -np.inf)  # no other cell to set a cut on
    order = np.argsort(-values, kind="stable")
    ordered, at = values[order], min(int(np.floor(rate * n)), n - 2)
    cuts = np.empty(n)
    cuts[order] = np.where(np.arange(n) > at, ordered[at], ordered[at + 1])
    return cuts
