"""Loops of the permutation tests: plain functions that numba compiles when first used and keeps on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


def shuffle(labels: Any, states: Any, out: Any) -> None:
    """Fill out (lanes, cells) with one unbiased shuffle of `labels` per lane (xoshiro256++, Lemire's bounded draws)."""
    one, s17, s19, s23, s32 = np.uint64(1), np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(32)
    s41, s45, low32, two32 = np.uint64(41), np.uint64(45), np.uint64(0xFFFFFFFF), np.uint64(1 << 32)
    cells = labels.size
    for lane in range(states.shape[0]):
        row = out[lane]
        for i in range(cells):
            row[i] = labels[i]
        a, b, c, d = states[lane, 0], states[lane, 1], states[lane, 2], states[lane, 3]
        for i in range(cells - 1, 0, -1):
            bound = np.uint64(i) + one
            floor = two32  # not computed unless it is needed
            while True:
                mixed = a + d
                draw = ((mixed << s23) | (mixed >> s41)) + a
                t = b << s17
                c ^= a
                d ^= b
                b ^= c
                a ^= d
                c ^= t
                d = (d << s45) | (d >> s19)
                product = (draw >> s32) * bound
                rest = product & low32
                if rest >= bound:
                    break
                if floor == two32:
                    floor = (two32 - bound) % bound
                if rest >= floor:
                    break
            j = product >> s32
            keep = row[i]
            row[i] = row[j]
            row[j] = keep


def locate(indptr: Any, indices: Any, data: Any, place: Any, rows: Any, sizes: Any) -> None:
    """Count the non-zeros of the chosen columns in the chosen rows; place (columns,) is -1 for the others."""
    for row in range(rows.size):
        if rows[row] >= 0:
            for k in range(indptr[row], indptr[row + 1]):
                at = place[indices[k]]
                if at >= 0 and data[k] != 0:
                    sizes[at] += 1


def gather(
    indptr: Any, indices: Any, data: Any, place: Any, rows: Any, scale: Any, at_next: Any, values: Any, cells: Any
) -> None:
    """Write the non-zeros that `locate` counted, column by column; at_next (chosen,) is where each begins."""
    for row in range(rows.size):
        cell = rows[row]
        if cell >= 0:
            for k in range(indptr[row], indptr[row + 1]):
                at = place[indices[k]]
                if at >= 0 and data[k] != 0:
                    to = at_next[at]
                    values[to] = np.int32(np.rint(data[k] * scale))
                    cells[to] = cell
                    at_next[at] = to + 1


def add_up(values: Any, cells: Any, start: Any, stop: Any, labels: Any, mark: Any, out: Any) -> None:
    """Add to out (genes, groups x 64) summed values, `mark` added to each, by labels (cells, 64)."""
    lanes = np.uint64(64)
    for gene in range(out.shape[0]):
        total = out[gene]
        for k in range(start[gene], stop[gene]):
            value = np.int64(values[k]) + mark
            row = labels[cells[k]]
            for lane in range(64):
                total[np.uint64(row[lane]) * lanes + np.uint64(lane)] += value


def count(ligand: Any, receptor: Any, rows: Any, observed: Any, lanes: int, multiply: bool, hits: Any) -> None:
    """Add to hits (rows,) the lanes in which a row's statistic reaches its observed value."""
    for r in range(rows.shape[0]):
        left = ligand[rows[r, 0], rows[r, 1]]
        right = receptor[rows[r, 2], rows[r, 3]]
        limit = observed[r]
        n = 0
        if multiply:
            for lane in range(lanes):
                n += left[lane] * right[lane] >= limit
        else:
            for lane in range(lanes):
                n += left[lane] + right[lane] >= limit
        hits[r] += n


def gene_sums(indptr: Any, indices: Any, data: Any, total: Any, seen: Any) -> None:
    """Add to total and seen (genes,) the values and the number of positive values of some rows."""
    for k in range(indptr[0], indptr[-1]):
        value = np.float64(data[k])
        total[indices[k]] += value
        if value > 0:
            seen[indices[k]] += 1


def bin_moments(
    indptr: Any, indices: Any, data: Any, bins: Any, start: Any, pair: Any, first: Any, second: Any, own: Any, own2: Any
) -> None:
    """Sums and sums of squares of each row by bin, and by (set, bin) pair; gene g has pair[start[g]:start[g + 1]]."""
    for row in range(indptr.size - 1):
        for k in range(indptr[row], indptr[row + 1]):
            gene = indices[k]
            b = bins[gene]
            if b >= 0:
                value = np.float64(data[k])
                square = value * value
                first[row, b] += value
                second[row, b] += square
                for j in range(start[gene], start[gene + 1]):
                    own[row, pair[j]] += value
                    own2[row, pair[j]] += square


def tail_counts(
    indptr: Any, indices: Any, data: Any, scale: float, member: Any, start: Any, draw: Any, total: Any, hits: Any
) -> None:
    """Count in hits (rows,) the drawn sets whose sum reaches the set's own; gene g is in draw[start[g]:start[g + 1]].

    Sums are of whole numbers, value times `scale`, so they do not depend on the order of the genes.
    """
    for row in range(indptr.size - 1):
        total[:] = 0
        observed = 0
        for k in range(indptr[row], indptr[row + 1]):
            gene = indices[k]
            value = np.int64(np.rint(np.float64(data[k]) * scale))
            observed += value * member[gene]
            for j in range(start[gene], start[gene + 1]):
                total[draw[j]] += value
        n = 0
        for i in range(total.size):
            n += total[i] >= observed
        hits[row] = n


def cache_folder() -> Path:
    """Folder of the compiled kernels where NUMBA_CACHE_DIR is not set: ``$XDG_CACHE_HOME/nicheloop/numba``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nicheloop" / "numba"


@cache
def compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """A kernel compiled without the interpreter's lock; from disk where an earlier process compiled it."""
    import numba

    config: Any = numba.config
    before = config.CACHE_DIR
    if not before:
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            config.CACHE_DIR = str(folder)  # read when the function is wrapped
        except OSError:
            pass  # a home that cannot be written: numba's own place, or no cache
    try:
        return numba.njit(cache=True, nogil=True)(kernel)
    except RuntimeError:  # no place to keep it
        return numba.njit(nogil=True)(kernel)
    finally:
        config.CACHE_DIR = before
