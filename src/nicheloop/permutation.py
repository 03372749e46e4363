"""Sums over permuted cell labels, many permutations at once, over the non-zeros only.  See docs/screen.md.

Everything is added up in integers, so the result is the same bit for bit whatever the chunks, the threads and the
order in which a gene's cells are stored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import kernels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.uint8]

LANES = 64  # labels of one cell under 64 permutations fill one cache line; the result does not depend on it
MAX_GROUPS = 255
CHUNK = 1024  # cells whose 64 genes stay in the second cache; the result does not depend on it
LISTED = 32  # chunks whose cells are listed by group at once: bounds memory, not the result
DENSE = 0.06  # share of cells from which reading a gene in every cell costs less than reading its non-zeros
MARK = 44  # bit above which cells with a count are added up: sums stay below 2^44, cells below 2^19


@dataclass(frozen=True)
class Columns:
    """Non-zeros of chosen genes, gene by gene, as integers.

    Attributes
    ----------
    values : (non-zeros,) int32, value x scale
    cells : (non-zeros,) int32, ascending within a gene
    start, stop : (genes,) int64, a gene's part of `values` and `cells`
    scale : a power of two; counts have 1 and are exact, others are rounded to the nearest 1 / scale
    n_cells : cells
    top : no value is larger
    """

    values: NDArray[np.int32]
    cells: NDArray[np.int32]
    start: Ints
    stop: Ints
    scale: float
    n_cells: int
    top: int

    @classmethod
    def of(
        cls,
        x: csr_matrix,
        genes: Sequence[int] | Ints | None = None,
        kept: NDArray[np.bool_] | None = None,
        *,
        counts: bool,
        extra: Floats | None = None,
        threads: int = 1,
    ) -> Columns:
        """Take columns of a (cells, genes) CSR matrix of values of 0 or more.

        Parameters
        ----------
        x
            Expression; no entry twice.
        genes
            Distinct positions, all by default.
        kept
            (cells,) cells to take, all by default.
        counts
            Whole numbers, kept exactly.  Others are rounded to 1 / scale: float32 values of 0.5 to 127 are kept
            exactly, smaller ones to 3e-8.
        extra
            (kept cells,) one more column, such as library sizes.
        threads
            Blocks of cells read at the same time; the result does not change.

        Raises
        ------
        ValueError
            If a value is negative, not finite, too large, or not whole where counts are expected.
        """
        chosen = np.arange(x.shape[1]) if genes is None else np.asarray(genes, dtype=np.int64)
        data = np.ascontiguousarray(x.data)
        edges = np.linspace(0, x.shape[0], granted(threads) + 1).astype(np.int64)
        blocks = list(itertools.pairwise(edges))
        parts = [p for p in (*(data[x.indptr[a] : x.indptr[b]] for a, b in blocks), extra) if p is not None and p.size]
        ends = np.zeros((len(parts), 2))

        def reach(i: int) -> None:
            ends[i] = parts[i].min(), parts[i].max()

        _at_once(reach, len(parts))
        low, top = (float(ends[:, 0].min()), float(ends[:, 1].max())) if parts else (0.0, 0.0)
        if np.isnan(ends).any():
            raise ValueError("values must be finite and not negative")
        if low < 0 or top >= 2**31:
            raise ValueError(f"values from {low:g} to {top:g}: expected 0 to 2^31")
        if counts and data.dtype.kind == "f" and not _whole(data):
            raise ValueError("counts are not whole numbers")
        scale = 1.0 if counts or top == 0 else 2.0 ** min(24, int(np.floor(np.log2((2**31 - 1) / top))))
        place = np.full(x.shape[1], -1, dtype=np.int16 if chosen.size < 2**15 else np.int32)  # int16: stays in cache
        place[chosen] = np.arange(chosen.size)
        use = np.ones(x.shape[0], dtype=bool) if kept is None else kept
        rows = np.where(use, np.cumsum(use) - 1, -1).astype(np.int32)
        sizes = np.zeros((len(blocks), chosen.size), dtype=np.int64)

        def locate(i: int) -> None:
            low, high = blocks[i]
            kernels.compiled(kernels.locate)(x.indptr[low : high + 1], x.indices, data, place, rows[low:high], sizes[i])

        _at_once(locate, len(blocks))
        n_cells = int(use.sum())
        total = int(sizes.sum())
        stop = np.cumsum(sizes.sum(axis=0))
        start = stop - sizes.sum(axis=0)
        at_next = start + np.cumsum(sizes, axis=0) - sizes  # a block begins where the one before it ends
        room = total + (0 if extra is None else n_cells)
        values, cells = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)

        def gather(i: int) -> None:
            low, high = blocks[i]
            pointers = x.indptr[low : high + 1]
            kernels.compiled(kernels.gather)(
                pointers, x.indices, data, place, rows[low:high], scale, at_next[i], values, cells
            )

        _at_once(gather, len(blocks))
        if extra is not None:
            values[total:], cells[total:] = np.rint(extra * scale), np.arange(n_cells)
            start, stop = np.append(start, total), np.append(stop, room)
        return cls(values, cells, start, stop, scale, n_cells, int(np.rint(top * scale)))

    @property
    def n_genes(self) -> int:
        """Genes."""
        return self.start.size

    @cached_property
    def totals(self) -> Ints:
        """(genes,) sums over all cells, in units of 1 / scale."""
        return np.array([self.values[a:b].sum(dtype=np.int64) for a, b in zip(self.start, self.stop, strict=True)])

    def take(self, genes: Ints) -> Columns:
        """The chosen genes, in the order given, without a copy of their values."""
        return Columns(self.values, self.cells, self.start[genes], self.stop[genes], self.scale, self.n_cells, self.top)


def _at_once(work: Callable[[int], None], n: int) -> None:
    """Call `work` for 0 to n - 1, each in a thread of its own; the first error is raised."""
    from concurrent.futures import ThreadPoolExecutor

    if n < 2:
        for i in range(n):
            work(i)
        return
    with ThreadPoolExecutor(max_workers=n) as pool:
        list(pool.map(work, range(n)))


def _whole(data: NDArray[Any], block: int = 1 << 20) -> bool:
    """Whether all values are whole numbers."""
    return all(np.array_equal(part, np.rint(part)) for part in np.split(data, range(block, data.size, block)))


def seeds(seed: int, stream: int, n: int) -> NDArray[np.uint64]:
    """(n, 4) generator states of permutations 0 to n - 1; the k-th does not depend on n."""
    words = np.random.SeedSequence([seed, stream]).generate_state(4 * n, np.uint64).reshape(n, 4).astype(np.uint64)
    words[:, 0] |= np.uint64(1)  # never all zero
    return words


def permuted_labels(labels: Labels, states: NDArray[np.uint64]) -> Labels:
    """(cells, 64) labels under one permutation per row of `states` (at most 64); lanes without one hold label 0.

    Parameters
    ----------
    labels
        (cells,) group of every cell.
    states
        (permutations, 4) from `seeds`.
    """
    lanes = np.zeros((LANES, labels.size), dtype=np.uint8)
    kernels.compiled(kernels.shuffle)(np.ascontiguousarray(labels), np.ascontiguousarray(states), lanes)
    return lanes.T


def sums(columns: Columns, labels: Labels, n_groups: int, *, positive: bool = False) -> Ints:
    """Sum every gene by group under 64 labelings.

    Parameters
    ----------
    columns
        The genes.
    labels
        (cells, 64) groups below `n_groups`, such as from `permuted_labels`.
    n_groups
        Number of groups, at most 255.
    positive
        Add the number of non-zeros, times 2^44, to each sum; see `split`.

    Returns
    -------
    (genes, groups, 64) int64, in units of 1 / scale.
    """
    if not 1 <= n_groups <= MAX_GROUPS:
        raise ValueError(f"{n_groups} groups: 1 to {MAX_GROUPS} are possible")
    if labels.shape != (columns.n_cells, LANES):
        raise ValueError(f"labels are {labels.shape}, expected {(columns.n_cells, LANES)}")
    if labels.size and int(labels.max()) >= n_groups:
        raise ValueError(f"label {int(labels.max())} is not below {n_groups}")
    out = np.zeros((columns.n_genes, n_groups * LANES), dtype=np.int64)
    common = np.zeros(columns.n_genes, dtype=bool)
    if not positive and 8 * columns.top < 2**32:
        common = columns.stop - columns.start > DENSE * columns.n_cells
    if common.any():
        dense = np.flatnonzero(common)
        out[common] = _sums_dense(columns.take(dense), columns.totals[dense], labels, n_groups)
    rare = np.flatnonzero(~common)
    if rare.size:
        part = columns.take(rare)
        mark = np.int64(1 << MARK if positive else 0)
        found = out if rare.size == columns.n_genes else np.zeros((rare.size, out.shape[1]), dtype=np.int64)
        kernels.compiled(kernels.add_up)(
            part.values, part.cells, part.start, part.stop, np.ascontiguousarray(labels), mark, found
        )
        if found is not out:
            out[rare] = found
    return out.reshape(-1, n_groups, LANES)


def _sums_dense(columns: Columns, totals: Ints, labels: Labels, n_groups: int) -> Ints:
    """(genes, groups x 64) sums of genes that many cells have: the same integers as by `kernels.add_up`."""
    by_lane = np.ascontiguousarray(labels.T)
    largest = int(np.bincount(by_lane[0], minlength=n_groups).argmax())  # what the others leave of the total
    chunks = -(-columns.n_cells // CHUNK)
    order = np.empty((min(chunks, LISTED), LANES, CHUNK + 8 * n_groups), dtype=np.uint16)
    starts = np.empty((len(order), LANES, n_groups + 1), dtype=np.int32)
    out, at = np.zeros((columns.n_genes, n_groups * LANES), dtype=np.int64), columns.start.copy()
    rows = np.empty((CHUNK + 1) * 64, dtype=np.uint32)
    parts = np.empty(LANES * n_groups * 64, dtype=np.uint64)
    place = np.empty(n_groups, dtype=np.int64)
    for first in range(0, chunks, LISTED):
        here = slice(0, min(LISTED, chunks - first))
        origin = first * CHUNK
        kernels.compiled(kernels.arrange)(by_lane, CHUNK, origin, largest, place, order[here], starts[here])
        kernels.compiled(kernels.add_up_dense)(
            columns.values, columns.cells, at, columns.stop, order[here], starts[here], CHUNK, origin, rows, parts, out
        )
    wide = out.reshape(-1, n_groups, LANES)
    wide[:, largest] = totals[:, None] - wide.sum(axis=1)  # the skipped group holds 0 so far
    return out


def split(marked: Ints) -> tuple[Ints, Ints]:
    """Sums and numbers of non-zeros from `sums` with ``positive``."""
    return marked & ((1 << MARK) - 1), marked >> MARK


def group_sums(
    columns: Columns, labels: Labels, n_groups: int, *, positive: bool = False
) -> Iterator[tuple[int, Ints]]:
    """Sum genes by group for any number of labelings, 64 at a time.

    Parameters
    ----------
    columns
        The genes.
    labels
        (cells, labelings) groups below `n_groups`.
    n_groups, positive
        As in `sums`.

    Yields
    ------
    First labeling of the chunk, and its (genes, groups, labelings of the chunk) sums.
    """
    for start in range(0, labels.shape[1], LANES):
        part = labels[:, start : start + LANES]
        width = part.shape[1]
        if width < LANES:
            part = np.pad(part, ((0, 0), (0, LANES - width)))
        yield start, sums(columns, part, n_groups, positive=positive)[..., :width]


def observed_sums(columns: Columns, labels: Labels, n_groups: int) -> tuple[Ints, Ints]:
    """(genes, groups) sums in units of 1 / scale, and non-zeros, under the labels as they are."""
    total = np.zeros((columns.n_genes, n_groups), dtype=np.int64)
    cells = np.zeros_like(total)
    for gene in range(columns.n_genes):
        part = slice(columns.start[gene], columns.stop[gene])
        group = labels[columns.cells[part]]
        cells[gene] = np.bincount(group, minlength=n_groups)
        total[gene] = np.bincount(group, weights=columns.values[part], minlength=n_groups)  # below 2^53: exact
    return total, cells


def atoms(masks: NDArray[np.bool_]) -> tuple[Labels, NDArray[np.bool_]]:
    """Turn overlapping populations into exclusive groups.

    Parameters
    ----------
    masks
        (cells, populations) membership.

    Returns
    -------
    (cells,) group of every cell, and (groups, populations) which populations a group belongs to: population sums are
    the group sums times this matrix.

    Raises
    ------
    ValueError
        If there are more than 255 combinations.
    """
    member, labels = np.unique(masks, axis=0, return_inverse=True)
    if len(member) > MAX_GROUPS:
        raise ValueError(f"{len(member)} combinations of populations: at most {MAX_GROUPS} are possible")
    return labels.reshape(-1).astype(np.uint8), member


def population_sums(
    x: csr_matrix, totals: Floats, masks: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield counts, cells with a count and library sizes of overlapping populations under permuted cells.

    Parameters
    ----------
    x
        (cells, genes) counts.
    totals
        (cells,) library sizes, whole numbers.
    masks
        (cells, populations) membership; one permutation moves all of them together.
    n, rng
        Permutations, drawn one after the other with ``rng.permutation(cells)``.

    Yields
    ------
    (permutations, populations, genes) counts and cells with a count, (permutations, populations) library sizes, for up
    to 64 permutations at a time; exact.
    """
    labels, member = atoms(masks)
    columns = Columns.of(x, counts=True, extra=totals)
    for start in range(0, n, LANES):
        count = min(LANES, n - start)
        tile = np.zeros((labels.size, LANES), dtype=np.uint8)
        for lane in range(count):
            tile[:, lane] = labels[rng.permutation(labels.size)]
        parts = split(sums(columns, tile, len(member), positive=True)[..., :count])
        umi, positive = (_of_populations(part, member) for part in parts)
        yield umi[..., :-1], positive[..., :-1], umi[..., -1]


def _of_populations(sums: Ints, member: NDArray[np.bool_]) -> Floats:
    """(permutations, populations, genes) sums from (genes, groups, permutations) ones; below 2^53, so exact."""
    genes, groups, lanes = sums.shape
    flat = sums.transpose(1, 0, 2).reshape(groups, -1).astype(np.float64)
    return (member.T.astype(np.float64) @ flat).reshape(-1, genes, lanes).transpose(2, 0, 1)


def drawn(labels: Labels, n: int, *, seed: int, stream: int) -> Callable[[int], Labels]:
    """Labelings for `count_extreme`: permutation k depends on `labels`, `seed`, `stream` and k only."""
    states = seeds(seed, stream, n)
    return lambda start: permuted_labels(labels, states[start : start + LANES])


def given(labelings: Labels) -> Callable[[int], Labels]:
    """Labelings for `count_extreme` from a (cells, permutations) matrix."""

    def tile(start: int) -> Labels:
        part = labelings[:, start : start + LANES]
        return np.pad(part, ((0, 0), (0, LANES - part.shape[1])))

    return tile


def count_extreme(
    columns: Columns,
    labelings: Callable[[int], Labels],
    n_permutations: int,
    n_groups: int,
    statistic: Callable[[Ints], tuple[Floats, Floats]],
    rows: NDArray[np.int32],
    observed: Floats,
    *,
    multiply: bool,
    positive: bool = False,
    threads: int = 1,
) -> Ints:
    """Count, for every row, the permutations whose statistic reaches the observed one.

    Parameters
    ----------
    columns
        Genes of all rows, each once.
    labelings
        From the first of 64 permutations to their (cells, 64) groups; see `drawn` and `given`.
    n_permutations, n_groups
        Numbers of permutations and of groups.
    statistic
        From (genes, groups, 64) sums to the two sides, (ligands, groups, 64) and (receptors, groups, 64) float64; no
        lane may depend on another.
    rows
        (rows, 4): ligand, sender group, receptor, receiver group.
    observed
        (rows,) the sides' sum or product, from the same `statistic` of the observed sums.
    multiply
        Compare products of the two sides, not their sums.
    positive
        As in `sums`.
    threads
        Chunks of 64 permutations computed at the same time; memory grows with it, the result does not change.

    Returns
    -------
    (rows,) int64.
    """
    from concurrent.futures import ThreadPoolExecutor

    rows = np.ascontiguousarray(rows, dtype=np.int32)
    observed = np.ascontiguousarray(observed, dtype=np.float64)
    total = np.zeros(len(rows), dtype=np.int64)
    if not len(rows):
        return total

    def chunk(start: int) -> Ints:
        left, right = statistic(sums(columns, labelings(start), n_groups, positive=positive))
        hits = np.zeros(len(rows), dtype=np.int64)
        kernels.compiled(kernels.count)(left, right, rows, observed, min(LANES, n_permutations - start), multiply, hits)
        return hits

    with ThreadPoolExecutor(max_workers=granted(threads)) as pool:
        for hits in pool.map(chunk, range(0, n_permutations, LANES)):
            total += hits
    return total


def granted(threads: int) -> int:
    """Threads to use: what was asked for, at most the cores this process may run on, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(threads, cores))
