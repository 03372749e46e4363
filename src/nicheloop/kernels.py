"""Loops of the permutation tests: plain functions that numba compiles when first used and keeps on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


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
            for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                at = place[np.uint64(indices[k])]
                if at >= 0 and data[k] != 0:
                    sizes[np.uint64(at)] += 1


def gather(
    indptr: Any, indices: Any, data: Any, place: Any, rows: Any, scale: Any, at_next: Any, values: Any, cells: Any
) -> None:
    """Write the non-zeros that `locate` counted, column by column; at_next (chosen,) is where each begins."""
    for row in range(rows.size):
        cell = rows[row]
        if cell >= 0:
            for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                at = place[np.uint64(indices[k])]
                if at >= 0 and data[k] != 0:
                    to = np.uint64(at_next[np.uint64(at)])
                    values[to] = np.int32(np.rint(data[k] * scale))
                    cells[to] = cell
                    at_next[np.uint64(at)] += 1


def add_up(values: Any, cells: Any, start: Any, stop: Any, labels: Any, mark: Any, out: Any) -> None:
    """Add to out (genes, groups x 64) summed values, `mark` added to each, by labels (cells, 64)."""
    lanes = np.uint64(64)
    for gene in range(out.shape[0]):
        total = out[gene]
        for k in range(np.uint64(start[gene]), np.uint64(stop[gene])):
            value = np.int64(values[k]) + mark
            row = labels[np.uint64(cells[k])]
            for lane in range(64):
                total[np.uint64(row[lane]) * lanes + np.uint64(lane)] += value


def arrange(labels: Any, chunk: int, origin: int, skip: int, place: Any, order: Any, starts: Any) -> None:
    """List the cells of every group but `skip`, chunk by chunk from cell `origin` on and lane by lane.

    labels (lanes, cells); order (chunks, lanes, room) positions within the chunk, each list filled up to a multiple of
    8 with `chunk`, the row of zeros; starts (chunks, lanes, groups + 1); place (groups,) is scratch.
    """
    lanes, cells = labels.shape
    groups = place.size
    for c in range(order.shape[0]):
        low = origin + c * chunk
        high = min(cells, low + chunk)
        for lane in range(lanes):
            for g in range(groups):
                place[g] = 0
            for i in range(low, high):
                place[labels[lane, i]] += 1
            at = 0
            for g in range(groups):
                n = 0 if g == skip else place[g]
                place[g] = at
                starts[c, lane, g] = at
                end = at + (n + 7) // 8 * 8
                for k in range(at + n, end):
                    order[c, lane, k] = chunk
                at = end
            starts[c, lane, groups] = at
            for i in range(low, high):
                g = labels[lane, i]
                if g != skip:
                    order[c, lane, place[g]] = i - low
                    place[g] += 1


def add_up_dense(
    values: Any,
    cells: Any,
    at: Any,
    stop: Any,
    order: Any,
    starts: Any,
    chunk: int,
    origin: int,
    rows: Any,
    sums: Any,
    out: Any,
) -> None:
    """`add_up` of genes that many cells have: 64 genes of a cell side by side, 8 cells of a group at once.

    Cells of a gene must ascend; 8 values must fit 32 bits.  The group that `arrange` skipped gets nothing.  at (genes,)
    is where each gene's cells from `origin` on begin, and moves to the end of those that `order` lists; rows
    ((chunk + 1) x 64) uint32 and sums (lanes x groups x 64) uint64 are scratch.  Slices and allocations in here would
    take numba six times as long to compile.
    """
    width = 64
    one, w = np.uint64(1), np.uint64(64)
    lanes, groups = order.shape[1], starts.shape[2] - 1
    for first in range(0, at.size, width):
        n = min(width, at.size - first)
        for k in range(sums.size):
            sums[k] = 0
        for c in range(order.shape[0]):
            low = origin + c * chunk
            for k in range(rows.size):
                rows[k] = 0
            for j in range(n):
                here, end = np.uint64(at[first + j]), np.uint64(stop[first + j])
                while here < end and cells[here] < low + chunk:
                    rows[np.uint64(cells[here] - low) * w + np.uint64(j)] = values[here]
                    here += one
                at[first + j] = here
            for lane in range(lanes):
                for g in range(groups):
                    base = np.uint64((lane * groups + g) * width)
                    for i in range(starts[c, lane, g], starts[c, lane, g + 1], 8):
                        i0, i1 = np.uint64(order[c, lane, i]) * w, np.uint64(order[c, lane, i + 1]) * w
                        i2, i3 = np.uint64(order[c, lane, i + 2]) * w, np.uint64(order[c, lane, i + 3]) * w
                        i4, i5 = np.uint64(order[c, lane, i + 4]) * w, np.uint64(order[c, lane, i + 5]) * w
                        i6, i7 = np.uint64(order[c, lane, i + 6]) * w, np.uint64(order[c, lane, i + 7]) * w
                        for lane64 in range(64):  # a number, so that it becomes a few wide instructions
                            j64 = np.uint64(lane64)
                            sums[base + j64] += np.uint64(
                                ((rows[i0 + j64] + rows[i1 + j64]) + (rows[i2 + j64] + rows[i3 + j64]))
                                + ((rows[i4 + j64] + rows[i5 + j64]) + (rows[i6 + j64] + rows[i7 + j64]))
                            )
        for j in range(n):
            for lane in range(lanes):
                for g in range(groups):
                    out[first + j, g * lanes + lane] += sums[(lane * groups + g) * width + j]


def side(sums: Any, factor: Any, subunits: Any, out: Any) -> None:
    """Fill out (sides, groups, lanes) with the least mean of a side's genes: sums (genes, groups, lanes) x factor."""
    for s in range(out.shape[0]):
        first = subunits[s, 0]
        for g in range(out.shape[1]):
            f = factor[g]
            for lane in range(out.shape[2]):
                out[s, g, lane] = sums[first, g, lane] * f
            for u in range(1, subunits.shape[1]):
                gene = subunits[s, u]
                if gene != first:
                    for lane in range(out.shape[2]):
                        value = sums[gene, g, lane] * f
                        if value < out[s, g, lane]:
                            out[s, g, lane] = value


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


def gene_sums(indptr: Any, indices: Any, data: Any, out: Any) -> None:
    """Add to out (genes, 2) the values and the number of positive values of some rows."""
    for k in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        value = np.float64(data[k])
        here = out[np.uint64(indices[k])]  # unsigned: no check for a negative place
        here[0] += value
        here[1] += np.float64(value > 0)


def add_products(
    indptr: Any, indices: Any, data: Any, other_indptr: Any, other_indices: Any, other_data: Any, out: Any
) -> None:
    """Add the product of two sparse matrices by rows to a dense one; terms in the order of the left one's columns."""
    for row in range(indptr.size - 1):
        total = out[row]
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            value = np.float64(data[k])
            middle = np.uint64(indices[k])
            for j in range(np.uint64(other_indptr[middle]), np.uint64(other_indptr[middle + np.uint64(1)])):
                total[np.uint64(other_indices[j])] += value * other_data[j]


def add_ratios(
    indptr: Any,
    indices: Any,
    data: Any,
    place: Any,
    low: Any,
    high: Any,
    unseen: Any,
    clip: float,
    starts: Any,
    windows: Any,
    weights: Any,
    out: Any,
) -> None:
    """Add to out (rows, windows) what the genes seen in a row change in its windows; terms in the order of its columns.

    A gene changes its windows by its clipped distance to the nearer of its bounds, low and high (genes,), less that of
    a gene not seen, times its weights in them.  place (columns,) is the position of a column among the genes, -1 for
    the others; starts, windows and weights are the rows of a sparse matrix.
    """
    one = np.uint64(1)
    for row in range(out.shape[0]):
        total = out[row]
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            at = place[np.uint64(indices[k])]
            if at >= 0:
                gene = np.uint64(at)
                value = np.float64(data[k])
                value -= min(max(value, low[gene]), high[gene])
                value = min(max(value, -clip), clip) - unseen[gene]
                for j in range(np.uint64(starts[gene]), np.uint64(starts[gene + one])):
                    total[np.uint64(windows[j])] += value * weights[j]


def row_sums(indptr: Any, indices: Any, data: Any, rows: Any, scale: Any, out: Any) -> None:
    """Add up some rows in out (columns,), each value times `scale`, in the order and type of the values."""
    for row in rows:
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            out[np.uint64(indices[k])] += data[k] * scale


def add_moments(indptr: Any, indices: Any, data: Any, scale: Any, seen: Any, mean: Any, square: Any) -> None:
    """Count the positive values of each column and add up values and squares, times `scale`, in the values' type."""
    for k in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        value, column = data[k], np.uint64(indices[k])
        seen[column] += np.int64(value > 0)
        mean[column] += value * scale
        square[column] += (value * value) * scale


def between_arms(first: Any, last: Any, bounds: Any, sums: Any, out: Any) -> None:
    """Write the between-arm sums of squares of two columns for each order of the genes to out (orders, 2).

    sums (genes + 1, 3) are running sums of weights and two weighted values.  Arm a of order s is made of the stretches
    bounds[s, a] to bounds[s, a + 1]; a stretch is the neighbouring genes first to last.
    """
    for row in range(bounds.shape[0]):
        out[row, 0], out[row, 1] = 0.0, 0.0
        for arm in range(bounds.shape[1] - 1):
            weight, one, two = 0.0, 0.0, 0.0
            for k in range(np.uint64(bounds[row, arm]), np.uint64(bounds[row, arm + 1])):
                low, high = sums[np.uint64(first[k])], sums[np.uint64(last[k])]
                weight += high[0] - low[0]
                one += high[1] - low[1]
                two += high[2] - low[2]
            if weight > 0:
                out[row, 0] += one * one / weight
                out[row, 1] += two * two / weight


def running_median(values: Any, starts: Any, ends: Any, window: int, out: Any) -> None:
    """Median of the `window` values around each, its group's first and last repeated; the upper of the two middle ones.

    A group is the values starts to ends; one smaller than the window has its size for a window.
    """
    ordered = np.empty(window)
    for group in range(starts.size):
        first, last = starts[group], ends[group] - 1
        size = min(window, ends[group] - first)
        before = size // 2
        for k in range(size):
            value = values[min(max(first + k - before, first), last)]
            at = k
            while at > 0 and ordered[at - 1] > value:
                ordered[at] = ordered[at - 1]
                at -= 1
            ordered[at] = value
        if size:
            out[first] = ordered[before]
        for i in range(first + 1, last + 1):
            leaves, enters = values[max(i - 1 - before, first)], values[min(i - 1 - before + size, last)]
            low, high = 0, size
            while low < high:
                middle = (low + high) // 2
                if ordered[middle] < leaves:
                    low = middle + 1
                else:
                    high = middle
            if enters > leaves:
                while low + 1 < size and ordered[low + 1] < enters:
                    ordered[low] = ordered[low + 1]
                    low += 1
            else:
                while low > 0 and ordered[low - 1] > enters:
                    ordered[low] = ordered[low - 1]
                    low -= 1
            ordered[low] = enters
            out[i] = ordered[before]


def running_sums(indptr: Any, indices: Any, data: Any, place: Any, out: Any) -> None:
    """Fill out (chunks, genes + 1, 64) with each row's sums over the genes before each one, 64 rows side by side.

    place (columns,) is the position of a column among the genes, -1 for the others.
    """
    one = np.uint64(1)
    for chunk in range(out.shape[0]):
        part = out[chunk]
        for gene in range(part.shape[0]):
            for lane in range(64):
                part[gene, lane] = 0.0
        for lane in range(min(64, indptr.size - 1 - 64 * chunk)):
            row = 64 * chunk + lane
            for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                at = place[np.uint64(indices[k])]
                if at >= 0:
                    part[np.uint64(at) + one, lane] += data[k]
        for gene in range(1, part.shape[0]):
            for lane in range(64):
                part[gene, lane] += part[gene - 1, lane]


def stretch_sums(sums: Any, first: Any, last: Any, arm: Any, bounds: Any, out: Any) -> None:
    """Add up stretches of genes by arm in out (orders, chunks, arms or more, 64); sums as by `running_sums`.

    Order s is made of the stretches bounds[s] to bounds[s + 1]: the genes first to last, of one arm.
    """
    for chunk in range(sums.shape[0]):
        part = sums[chunk]
        for row in range(out.shape[0]):
            of_arm = out[row, chunk]
            for k in range(np.uint64(bounds[row]), np.uint64(bounds[row + 1])):
                total = of_arm[np.uint64(arm[k])]
                low, high = part[np.uint64(first[k])], part[np.uint64(last[k])]
                for lane in range(64):  # a number, so that it becomes a few wide instructions
                    total[lane] += high[lane] - low[lane]


def matched_moments(
    indptr: Any,
    indices: Any,
    data: Any,
    code: Any,
    start: Any,
    pair: Any,
    bounds: Any,
    pairs: Any,
    n: Any,
    bins: int,
    cubes: bool,
    out: Any,
) -> None:
    """Fill out (4, rows, sets): mean over each set; mean, standard deviation and skewness of its matched draws.

    code (genes,) is -1 for genes seen nowhere, else twice the bin, plus 1 for genes of a set; such a gene g is in the
    (set, bin) pairs pair[start[g]:start[g + 1]].  bounds (sets + 1,): the pairs of each set.  pairs (4, pairs): bin,
    genes of the set in the bin, whether they leave the pool, 1 / size of the pool.  n (sets,) genes of each set.
    cubes: whether skewness is asked for; else it is 0.
    """
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)  # unsigned places need no check for negative ones
    n_pairs = pairs.shape[1]
    sums, own = np.zeros(3 * bins), np.zeros(3 * n_pairs)  # values, squares, cubes
    of_bin = np.empty(n_pairs, dtype=np.uint64)
    for p in range(n_pairs):
        of_bin[p] = np.uint64(pairs[0, p]) * three
    weight, exclude, share = pairs[1], pairs[2], pairs[3]
    longest = 0
    for row in range(indptr.size - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    kept = np.empty(longest + 1, dtype=np.uint64)
    for row in range(indptr.size - 1):
        sums[:] = 0
        own[:] = 0
        n_kept = np.uint64(0)
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            at = code[np.uint64(indices[k])]
            if at >= 0:
                value = np.float64(data[k])
                square = value * value
                b = np.uint64(at >> 1) * three
                sums[b] += value
                sums[b + one] += square
                if cubes:
                    sums[b + two] += square * value
                kept[n_kept] = k  # overwritten unless the gene is in a set: no branch to mispredict
                n_kept += np.uint64(at & 1)
        for i in range(n_kept):
            k = kept[i]
            gene, value = np.uint64(indices[k]), np.float64(data[k])
            square = value * value
            for j in range(np.uint64(start[gene]), np.uint64(start[gene + one])):
                b = np.uint64(pair[j]) * three
                own[b] += value
                own[b + one] += square
                if cubes:
                    own[b + two] += square * value
        for s in range(n.size):
            seen, mean, variance, third = 0.0, 0.0, 0.0, 0.0
            for p in range(np.uint64(bounds[s]), np.uint64(bounds[s + 1])):
                b, o = of_bin[p], p * three
                mu = (sums[b] - exclude[p] * own[o]) * share[p]
                square = (sums[b + one] - exclude[p] * own[o + one]) * share[p]
                seen += own[o]
                mean += mu * weight[p]
                variance += max(square - mu * mu, 0.0) * weight[p]
                if cubes:
                    cube = (sums[b + two] - exclude[p] * own[o + two]) * share[p]
                    third += (cube - 3 * mu * square + 2 * mu * mu * mu) * weight[p]
            out[0, row, s] = seen / n[s]
            out[1, row, s] = mean / n[s]
            out[2, row, s] = np.sqrt(variance) / n[s]
            out[3, row, s] = third / (variance * np.sqrt(variance)) if variance > 0 else 0.0


def tail_counts(
    indptr: Any, indices: Any, data: Any, scale: float, member: Any, start: Any, draw: Any, total: Any, hits: Any
) -> None:
    """Count in hits (rows,) the drawn sets whose sum reaches the set's own; gene g is in draw[start[g]:start[g + 1]].

    Sums are of whole numbers, value times `scale`, so they do not depend on the order of the genes.
    """
    for row in range(indptr.size - 1):
        total[:] = 0
        observed = 0
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            gene = np.uint64(indices[k])
            value = np.int64(np.rint(np.float64(data[k]) * scale))
            observed += value * member[gene]
            for j in range(np.uint64(start[gene]), np.uint64(start[gene + np.uint64(1)])):
                total[np.uint64(draw[j])] += value
        n = 0
        for i in range(total.size):
            n += total[i] >= observed
        hits[row] = n


def add_pairs(rows: Any, values: Any, starts: Any, indptr: Any, indices: Any, data: Any, place: Any, out: Any) -> None:
    """Add X'X to the upper triangle of out (genes, genes); X by gene and by cell, cells' genes in rising order.

    place (cells,) is where each cell's non-zeros begin; it moves on gene by gene, so what follows it in the cell are
    the genes to pair with, and one row of the sum is written at a time.
    """
    one = np.uint64(1)
    for gene in range(starts.size - 1):
        row = out[gene]
        for p in range(np.uint64(starts[gene]), np.uint64(starts[gene + 1])):
            cell, value = np.uint64(rows[p]), np.float64(values[p])
            first = place[cell]
            place[cell] = first + 1
            for q in range(np.uint64(first), np.uint64(indptr[cell + one])):
                row[np.uint64(indices[q])] += value * data[q]


def cache_folder() -> Path:
    """Folder of the compiled kernels where NUMBA_CACHE_DIR is not set: ``$XDG_CACHE_HOME/nicheloop/numba``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nicheloop" / "numba"


def prepare() -> None:
    """Load numba and the modules it would load at the first compiled call."""
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """A kernel compiled without the interpreter's lock; from disk where an earlier process compiled it."""
    with _ONE:  # the folder is a setting of the whole process
        return _wrapped(kernel)


_ONE = threading.Lock()


def dense_product(left: csr_matrix, right: csr_matrix) -> NDArray[np.float64]:
    """(rows, columns) dense product of two CSR matrices, as `(left @ right).toarray()` in one pass instead of three."""
    if left.shape[1] != right.shape[0] or left.format != "csr" or right.format != "csr":
        raise ValueError(f"{left.format} {left.shape} times {right.format} {right.shape}")  # the loop would not notice
    out = np.zeros((left.shape[0], right.shape[1]))
    weights = right.data.astype(np.float64, copy=False)
    compiled(add_products)(left.indptr, left.indices, left.data, right.indptr, right.indices, weights, out)
    return out


def mean_of_rows(x: csr_matrix, rows: NDArray[np.integer]) -> NDArray[np.floating]:
    """(columns,) mean of some rows, as `x[rows].mean(axis=0)` to the last bit and in its type, without a copy."""
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    out = np.zeros(x.shape[1], dtype=kind)
    compiled(row_sums)(x.indptr, x.indices, x.data, rows, kind.type(1.0 / len(rows)), out)
    return out


def column_moments(x: csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.floating]]:
    """(columns,) positive values, mean and mean square of each column of floats, as by scipy to the last bit."""
    seen = np.zeros(x.shape[1], dtype=np.int64)
    mean, square = np.zeros((2, x.shape[1]), dtype=x.dtype)
    compiled(add_moments)(x.indptr, x.indices, x.data, x.dtype.type(1.0 / x.shape[0]), seen, mean, square)
    return seen, mean, square


@cache
def _wrapped(kernel: Callable[..., None]) -> Callable[..., None]:
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
