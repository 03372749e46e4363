"""Split epithelium that resembles itself in expression into cells of different copy number.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import cnv_moved
from nicheloop.cnv import amplitude
from nicheloop.cnv_groups import Coherence, Settings, arm_evidence, shuffles
from nicheloop.kernels import mean_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

    from nicheloop.cnv import Bools, Floats, Ints, Layout


def two_means(values: Floats) -> Bools:
    """(n,) the upper group of the split into two that leaves the least sum of squares (exact, one dimension)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.float64)
    n = len(ordered)
    if n < 2 or ordered[0] == ordered[-1]:
        return np.zeros(n, dtype=bool)
    left = np.arange(1, n)
    total = np.cumsum(ordered)
    gain = total[:-1] ** 2 / left + (total[-1] - total[:-1]) ** 2 / (n - left)
    gain[ordered[1:] == ordered[:-1]] = -np.inf
    return np.asarray(values > ordered[int(np.argmax(gain))])


def mixture_side(values: Floats, upper: Bools, n_rounds: int = 50) -> Bools:
    """(n,) upper of two Gaussians of one variance, fitted by EM from a first split; their weights move the border."""
    if upper.all() or not upper.any() or float(values.std()) == 0:
        return upper
    share, n = upper.astype(np.float64), len(values)
    values = values - values.mean()  # the spread is a difference of sums of squares
    whole, whole_square = float(values.sum()), float((values**2).sum())
    before: tuple[float, ...] = ()
    for _ in range(n_rounds):
        size, total = float(share.sum()), float(share @ values)
        weight = min(max(size / n, 1e-9), 1 - 1e-9)
        high, low = total / (n * weight), (whole - total) / (n * (1 - weight))
        spread = whole_square - (2 * high * total - high**2 * size)
        spread = (spread - (2 * low * (whole - total) - low**2 * (n - size))) / n
        now = weight, high, low, spread
        if spread <= 0 or now == before:  # the same again for ever
            break
        before = now
        slope = (high - low) / spread
        np.multiply(values, -slope, out=share)
        share -= float(np.log(weight / (1 - weight))) - slope * (high + low) / 2
        np.minimum(share, 500, out=share)  # no overflow
        np.exp(share, out=share)
        share += 1
        np.reciprocal(share, out=share)
    return np.asarray(share > 0.5)


def refine(profiles: Floats, upper: Bools, n_rounds: int = 10) -> Bools:
    """Move cells between two groups along the difference of their mean profiles until none moves.

    Parameters
    ----------
    profiles
        (cells, windows).
    upper
        (cells,) first split.

    Returns
    -------
    (cells,) the split reached; a cell never counts in the means it is compared with.
    """
    values = profiles.astype(np.float64)
    values -= values.mean(axis=0)  # changes no score, and products of small values lose less
    for _ in range(n_rounds):
        if min(upper.sum(), (~upper).sum()) < 2:
            break
        moved = mixture_side(between_means(values, upper), upper)
        if (moved == upper).all():
            break
        upper = moved
    return upper


def between_means(values: Floats, upper: Bools) -> Floats:
    """(cells,) place of each cell along the difference of two groups' means, the cell itself left out of them.

    Parameters
    ----------
    values
        (cells, columns), without their mean over cells.
    upper
        (cells,) the upper group; at least two cells, and two others.

    Returns
    -------
    0 half way between the means, 1/2 at the upper and -1/2 at the lower one; 0 where the means are the same.
    """
    # From products with the two sums: the means differ from cell to cell and are never made.
    sides = np.array([upper, ~upper], dtype=np.float64)
    sums = sides @ values
    scale = 1 / (sides.sum(axis=1, keepdims=True) - sides)
    own, along = (values**2).sum(axis=1), sums @ values.T
    with_mean = scale * (along - sides * own)
    length = scale**2 * ((sums**2).sum(axis=1, keepdims=True) - sides * (2 * along - own))
    shared = scale[0] * scale[1] * (sums[0] @ sums[1] - sides[0] * along[1] - sides[1] * along[0])
    square = length[0] + length[1] - 2 * shared
    place = with_mean[0] - with_mean[1] - (length[0] - length[1]) / 2
    return np.asarray(np.divide(place, square, out=np.zeros(len(values)), where=square > 0))


def components(profiles: Floats, n: int) -> Floats:
    """(cells, n) scores on the leading principal components, exact, from the windows' covariance."""
    centred = profiles.astype(np.float64) - profiles.mean(axis=0, dtype=np.float64)
    if len(centred) < centred.shape[1]:  # the smaller of the two products
        values, vectors = np.linalg.eigh(centred @ centred.T)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :n])
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, ::-1][:, :n])


def arm_mixture(
    x: sparse.csr_matrix, deep: Floats, like: Ints, where: Layout, settings: Settings, stop_above: float = 1.0
) -> Floats:
    """Test whether cells differ from each other along chromosome arms more than along shuffled ones.

    The variances of the leading principal components of arm scores are compared with those after blocks of neighbouring
    genes moved: an expression programme makes cells differ on shuffled arms just as much, copy number does not.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    deep, like
        (cells,) depth and small cluster; see `cnv_arms.without_depth`.
    where, settings
        Genes in genomic order; the shuffles.
    stop_above
        Shuffling ends once no component can have a p this small any more.

    Returns
    -------
    (components,) p of each; the least it could still be (above `stop_above`) where shuffling ended early.
    """
    if x.shape[0] > settings.max_cells:
        some = np.linspace(0, x.shape[0] - 1, settings.max_cells).astype(np.int64)
        x, deep, like = x[some], deep[some], like[some]
    genes = len(where.arms)
    moved = shuffles(genes, settings.block, settings.n_permutations, settings.seed)[: settings.n_mixture]
    orders = np.concatenate([np.arange(genes, dtype=moved.dtype)[None], moved])
    every = (
        variances
        for products in cnv_moved.moved_products(x, where, orders, deep, like)
        for variances in np.linalg.eigvalsh(products)[:, ::-1][:, : settings.n_components]
    )
    seen = next(every)  # the first order is that of the genome
    reached = np.zeros(len(seen))
    for variances in every:
        reached += variances >= seen
        if ((1 + reached) / (1 + len(moved)) > stop_above).all():
            break
    return np.asarray((1 + reached) / (1 + len(moved)))


def split_groups(
    x: sparse.csr_matrix,
    profiles: Floats,
    first: Floats,
    deep: Floats,
    like: Ints,
    where: Layout,
    *,
    settings: Settings,
    min_cells: int,
    max_p: float,
    max_mixture_p: float,
    aneuploid: Callable[[Floats], bool],
) -> list[Ints]:
    """Split cells into groups of different copy number.

    A split is found along a principal component of the arm scores whose variance shuffled arms do not reach, or found
    on the even genes and confirmed on the odd ones.  A group that follows chromosome arms as a whole is split more
    readily: some of its cells are tumour cells, so all that is at stake is whether normal cells hide among them.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    profiles, first
        (cells, arms) scores from all genes, and from the even genes; see `cnv_arms`.
    deep, like
        (cells,) depth and small cluster; see `cnv_arms.without_depth`.
    where
        Genes; the odd genes confirm.
    settings, min_cells, max_p, max_mixture_p
        Test settings; smallest group; largest p, and that for groups which follow arms (divided by the axes tried).
    aneuploid
        Whether a group of that mean expression follows chromosome arms.

    Returns
    -------
    Row numbers of each group; one group if nothing could be confirmed.
    """
    odd = replace(where, columns=where.columns[1::2], arms=where.arms[1::2])
    test = replace(settings, min_arm_genes=max(2, settings.min_arm_genes // 2))
    waiting, done = [np.arange(x.shape[0])], []

    def differ(cells: Ints, upper: Bools, genes: Layout, how: Settings) -> Coherence:
        high, low = (mean_of_rows(x, cells[side]) for side in (upper, ~upper))
        return arm_evidence(high, low, genes, how)

    while waiting:
        cells = waiting.pop()
        best: tuple[float, Bools] | None = None
        if len(cells) >= 2 * min_cells and first.shape[1] > 1:
            tried = [(c, "all") for c in components(profiles[cells], settings.n_components).T]
            tried += [(c, "half") for c in components(first[cells], settings.n_components).T]
            # normal cells carry less of the group's profile
            tried.append((amplitude(first[cells], np.ones(len(cells), dtype=bool)), "half"))
            level = max_mixture_p if aneuploid(mean_of_rows(x, cells)) else max_p
            level /= settings.n_components
            p = arm_mixture(x[cells], deep[cells], like[cells], where, settings, stop_above=level)
            for k, (score, genes) in enumerate(tried):
                if genes == "all" and p[k] > level:
                    continue
                upper = two_means(score)
                upper = refine(first[cells], upper) if genes == "half" else mixture_side(score, upper)
                if min(upper.sum(), (~upper).sum()) < min_cells:
                    continue
                if genes == "half":
                    found = differ(cells, upper, odd, test)
                    if found.p > max_p / (settings.n_components + 1):
                        continue
                    upper = refine(profiles[cells], upper)
                    if min(upper.sum(), (~upper).sum()) < min_cells:
                        continue
                found = differ(cells, upper, where, settings)
                if best is None or found.ratio > best[0]:
                    best = found.ratio, upper
        if best is None:
            done.append(cells)
        else:
            waiting += [cells[best[1]], cells[~best[1]]]
    return sorted(done, key=lambda c: (-len(c), int(c[0])))
