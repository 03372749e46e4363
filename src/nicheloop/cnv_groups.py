"""Copy-number groups of cells: coherence along chromosome arms, clones and normal cells.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop.kernels import between_arms, compiled, running_median

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nicheloop.cnv import Bools, Floats, Ints, Layout


FOR_SCALE = 150  # shuffles that set the scale of the ratio


def log_difference(mean: Floats, base: Floats, pseudo: float) -> Floats:
    """(genes,) log2 ratio of two mean profiles, centred on its median; `pseudo` is added to both."""
    ratio = np.log2((mean + pseudo) / (base + pseudo))
    return np.asarray(ratio - np.median(ratio)) if len(ratio) else ratio


@dataclass(frozen=True)
class Coherence:
    """Evidence that a group's expression follows chromosome arms.

    ``ratio`` is the between-arm sum of squares over what shuffled blocks of genes give once the arm means are taken off
    (1: none; it grows with the change); ``p`` is the share of plain shuffles that reach the sum of squares.
    """

    ratio: float
    p: float


@lru_cache(maxsize=4)
def shuffles(n: int, block: int, n_permutations: int, seed: int) -> Ints:
    """(permutations, genes) order of the genes after blocks of neighbours moved and the genome turned by some genes."""
    rng = np.random.default_rng(seed)
    n_blocks = n // block
    index = np.argsort(rng.random((n_permutations, n_blocks)), axis=1)
    moved = (index[:, :, None] * block + np.arange(block)).reshape(n_permutations, -1)
    tail = np.broadcast_to(np.arange(n_blocks * block, n), (n_permutations, n - n_blocks * block))
    moved = np.concatenate([moved, tail], axis=1).astype(np.int32)
    shift = rng.integers(n, size=n_permutations)
    return np.asarray(np.take_along_axis(moved, (np.arange(n) + shift[:, None]) % n, axis=1))


@dataclass(frozen=True)
class Stretches:
    """Neighbouring genes that shuffles leave side by side within an arm; sums over arms are sums over these.

    Attributes
    ----------
    first, last : (stretches,) the genes first to last, `last` left out
    bounds : (shuffles, arms + 1) where the stretches of each arm begin; those of the last one end
    """

    first: Ints
    last: Ints
    bounds: Ints


def stretches(orders: Ints, starts: Ints, ends: Ints) -> Stretches:
    """Cut orders of the genes (shuffles, genes) into stretches; an arm is the places starts to ends of an order."""
    new = np.ones(orders.shape, dtype=bool)
    new[:, 1:] = orders[:, 1:] != orders[:, :-1] + 1
    new[:, starts] = True
    new[:, ends[ends < orders.shape[1]]] = True
    at = np.flatnonzero(new)
    place = at % orders.shape[1]
    arm = np.searchsorted(ends, place, side="right")
    inside = (arm < len(starts)) & (place >= np.append(starts, orders.shape[1])[arm])
    length = np.diff(np.append(at, orders.size))[inside]
    row, arm, first = (at // orders.shape[1])[inside], arm[inside], orders.ravel()[at[inside]]
    before = np.searchsorted(row * len(starts) + arm, np.arange(orders.shape[0] * len(starts) + 1))
    bounds = before[np.arange(orders.shape[0])[:, None] * len(starts) + np.arange(len(starts) + 1)]
    return Stretches(first, (first + length).astype(first.dtype), bounds)


@lru_cache(maxsize=8)
def _shuffled_stretches(
    n: int, block: int, n_permutations: int, seed: int, starts: tuple[int, ...], ends: tuple[int, ...]
) -> Stretches:
    """Return `stretches` of `shuffles`."""
    return stretches(shuffles(n, block, n_permutations, seed), np.array(starts), np.array(ends))


def coherence(
    difference: Floats,
    arms: NDArray[Any],
    *,
    n_permutations: int,
    min_genes: int,
    seed: int,
    block: int,
    clip: float,
    weights: Floats | None = None,
) -> Coherence:
    """Test whether a difference between two groups of cells is organised by chromosome arm.

    A gained or lost arm shifts most of its genes a little; a cell type's programme shifts a few genes a lot, anywhere.
    So the squared arm means of clipped log ratios are compared with those after blocks of neighbouring genes moved.

    Parameters
    ----------
    difference
        (genes,) log2 ratio in genomic order.
    arms
        (genes,) name or number of each gene's arm.
    n_permutations, min_genes, seed
        Shuffles; genes an arm needs to count; seed of the shuffles.
    block, clip
        Genes kept together when they are shuffled (neighbours may share regulation); largest log2 ratio of a gene.
    weights
        (genes,) weight of each gene; all alike without it.

    Returns
    -------
    Coherence; ratio 1 and p 1 where no arm has enough genes.
    """
    n = len(difference)
    starts = np.flatnonzero(np.r_[True, arms[1:] != arms[:-1]]) if n else np.array([], dtype=np.int64)
    ends = np.r_[starts[1:], n].astype(np.int64)
    which = np.repeat(np.arange(len(starts)), ends - starts)
    large = (ends - starts) >= min_genes
    size = min(block, max(n, 1))
    n_blocks = n // size
    if large.sum() < 2 or n_blocks <= len(starts):
        return Coherence(1.0, 1.0)
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    values = np.clip(difference - np.median(difference), -clip, clip)
    values = values - np.average(values, weights=weight)
    of_arm = np.bincount(which, weights=weight)
    total = np.bincount(which, weights=weight * values)
    residual = values - np.divide(total, of_arm, out=np.zeros_like(total), where=of_arm > 0)[which]

    sums = np.zeros((n + 1, 3))
    np.cumsum(np.column_stack([weight, values * weight, residual * weight]), axis=0, out=sums[1:])
    kernel, found = compiled(between_arms), np.empty((1 + n_permutations, 2))
    starts, ends = starts[large], ends[large]
    kernel(starts, ends, np.arange(len(starts) + 1)[None], sums, found[:1])
    moved = _shuffled_stretches(n, size, n_permutations, seed, tuple(starts.tolist()), tuple(ends.tolist()))
    kernel(moved.first, moved.last, moved.bounds, sums, found[1:])
    observed, null = float(found[0, 0]), found[1:, 0]
    left = found[1 : 1 + FOR_SCALE, 1]  # a mean needs fewer than a p-value
    lost = 1 - len(of_arm) / n_blocks  # the arm means took part of the noise with them
    scale = float(left.mean()) / lost
    if scale <= 0:
        return Coherence(1.0, 1.0)
    return Coherence(observed / scale, (1 + int((null >= observed * (1 - 1e-12)).sum())) / (1 + n_permutations))


def lineage_genes(difference: Floats, arms: Ints, window: int, n_mads: float) -> Bools:
    """Genes that stand out from their genomic neighbours: a cell type's own genes, not copy number.

    Parameters
    ----------
    difference
        (genes,) log2 ratio of epithelium to reference in genomic order.
    arms
        (genes,) number of each gene's arm.
    window, n_mads
        Genes of the running median; distance from it, in scaled MAD, that makes a gene stand out.

    Returns
    -------
    (genes,) True where the gene stands out.
    """
    local = np.zeros(len(difference))
    order = np.argsort(arms, kind="stable")
    n = np.bincount(arms)
    ends = np.cumsum(n)
    medians = np.empty(len(difference))
    compiled(running_median)(np.asarray(difference, dtype=np.float64)[order], ends - n, ends, window, medians)
    local[order] = medians
    rest = difference - local
    spread = 1.4826 * float(np.median(np.abs(rest))) if len(rest) else 0.0
    return np.asarray(np.abs(rest) > n_mads * spread) if spread > 0 else np.zeros(len(rest), dtype=bool)


@dataclass(frozen=True)
class Settings:
    """What the tests of arm coherence need.

    Shuffles, smallest arm, running window and cut for lineage genes, seed, genes shuffled together, pseudo-expression
    of log ratios, largest log2 ratio of a gene, principal components tried for a split, expression at which a gene has
    half of the full weight; shuffles, and cells at most, of the test for a mixture.
    """

    n_permutations: int
    min_arm_genes: int
    window: int
    lineage_mads: float
    seed: int
    block: int
    pseudo: float
    clip: float
    n_components: int
    half_weight: float
    n_mixture: int
    max_cells: int


def arm_evidence(
    mean: Floats, base: Floats, where: Layout, settings: Settings, shift: dict[str, float] | None = None
) -> Coherence:
    """Arm coherence of the difference between two groups' mean expression, lineage genes left out.

    Parameters
    ----------
    mean, base
        (genes,) mean log-normalised expression, all columns of the matrix.
    where
        Genes in genomic order.
    settings
        See `Settings`.
    shift
        log2 shift to add to the genes of an arm: what would be seen if the group carried that change.
    """
    difference = log_difference(mean[where.columns], base[where.columns], settings.pseudo)
    for arm, value in (shift or {}).items():
        difference = difference + np.where(where.arms == arm, value, 0.0)
    arms = where.arm_codes[1]
    keep = ~lineage_genes(difference, arms, settings.window, settings.lineage_mads)
    level = (mean[where.columns] + base[where.columns]) / 2
    return coherence(
        difference,
        arms,
        n_permutations=settings.n_permutations,
        min_genes=settings.min_arm_genes,
        seed=settings.seed,
        block=settings.block,
        clip=settings.clip,
        weights=keep * level / (level + settings.half_weight),
    )


def arm_means(mean: Floats, base: Floats, where: Layout, settings: Settings) -> tuple[Floats, Ints]:
    """(arms,) mean clipped log2 difference and number of genes of each arm, arms in sorted order."""
    difference = log_difference(mean[where.columns], base[where.columns], settings.pseudo)
    difference = np.clip(difference, -settings.clip, settings.clip)
    _, arm, n = where.arm_codes
    return np.bincount(arm, weights=difference) / n, n


def kinds_of_groups(
    means: list[Floats],
    base: Floats,
    evidence: list[tuple[bool, Coherence]],
    where: Layout,
    settings: Settings,
    *,
    need: float,
    max_p: float,
    min_signal: float,
    max_share: float,
    sure: float,
) -> list[str]:
    """Tell aneuploid from diploid groups, by their difference to the reference and to each other.

    Two groups of epithelium share their lineage, so their difference shows copy number better than either one's
    difference to stroma.  Which of the two carries it: the aneuploid one's difference to the reference contains the
    whole contrast, the diploid one's contains none of it.  Two clones with changes of their own both contain part.

    Parameters
    ----------
    means, base
        (genes,) mean expression of each group, and of the reference.
    evidence
        Per group: it follows chromosome arms more than normal lineages do, and by how much.
    where, settings, need, max_p
        Genes in genomic order; the test and its thresholds (arm coherence, p).
    min_signal
        A group that shares less than this of the strongest group's change is diploid.
    max_share
        Largest share of a contrast that still counts as none of it.
    sure
        Arm coherence that lineage alone does not reach: below it, a group that shows none of its contrast with a surely
        aneuploid one is diploid, however it differs from stroma.

    Returns
    -------
    ``aneuploid``, ``diploid`` or ``unclear`` for each group.
    """
    n = len(means)
    kinds = ["aneuploid" if yes else "unclear" for yes, _ in evidence]
    arms = [arm_means(m, base, where, settings) for m in means]
    size = arms[0][1]

    def share(of: int, signal: Floats) -> float:
        length = float((signal**2 * size).sum())
        return float((arms[of][0] * signal * size).sum() / length) if length > 0 else 0.0

    contrasts = []
    for i in range(n):
        for j in range(i + 1, n):
            found = arm_evidence(means[i], means[j], where, settings)
            if found.p <= max_p and found.ratio >= need:
                signal = arm_means(means[i], means[j], where, settings)[0]
                shares = np.array([share(i, signal), -share(j, signal)])
                shares = np.abs(
                    shares / (shares.sum() or 1.0)
                )  # log ratios to stroma are clipped more than those to kin
                if min(shares) <= max_share < 1 - max_share <= max(shares):
                    contrasts.append((found.ratio, *((i, j) if shares[0] > shares[1] else (j, i)), signal))
    for _, yes, no, _ in contrasts:
        # Programmes of normal epithelium can follow arms against each other: the group must do so against stroma too.
        if kinds[no] != "aneuploid" and evidence[yes][1].p <= max_p:
            kinds[yes] = "aneuploid"
    if "aneuploid" not in kinds:
        return kinds
    for _, yes, no, _ in contrasts:
        weak = kinds[no] != "aneuploid" or evidence[no][1].ratio < sure <= evidence[yes][1].ratio
        if kinds[yes] == "aneuploid" and weak:
            kinds[no] = "diploid"
    strongest = max((i for i in range(n) if kinds[i] == "aneuploid"), key=lambda i: evidence[i][1].ratio)
    for i in range(n):
        if kinds[i] == "unclear" and share(i, arms[strongest][0]) < min_signal:
            kinds[i] = "diploid"
    return kinds


def scaled_difference(mean: Floats, other: Floats, base: Floats, where: Layout, settings: Settings) -> Coherence:
    """Arm coherence of what is left of one group's difference to `base` after the best multiple of another's.

    Groups of one clone that differ in depth or in expression show the same changes at another scale; two clones do not.
    """
    mine, theirs = (
        np.clip(log_difference(m[where.columns], base[where.columns], settings.pseudo), -settings.clip, settings.clip)
        for m in (mean, other)
    )
    (a, n), (b, _) = arm_means(mean, base, where, settings), arm_means(other, base, where, settings)
    length = float((b**2 * n).sum())
    rest = mine - (float((a * b * n).sum()) / length if length > 0 else 0.0) * theirs
    level = (mean[where.columns] + other[where.columns]) / 2
    return coherence(
        rest, where.arm_codes[1], n_permutations=settings.n_permutations, min_genes=settings.min_arm_genes,
        seed=settings.seed, block=settings.block, clip=settings.clip, weights=level / (level + settings.half_weight),
    )  # fmt: skip


def join_clones(
    groups: list[Bools], means: list[Floats], base: Floats, where: Layout, settings: Settings, max_p: float
) -> list[Bools]:
    """Aneuploid groups joined where they show the same changes, whatever their scale: one clone in several states.

    Parameters
    ----------
    groups, means
        (cells,) members, and (genes,) mean expression, of the aneuploid groups.
    base
        (genes,) what they are compared with.
    where, settings, max_p
        Genes in genomic order; the test; p at which the difference beyond scale makes two clones.
    """
    clones, means, cells = list(groups), list(means), [int(g.sum()) for g in groups]
    differ: set[frozenset[int]] = set()
    names = list(range(len(groups)))
    arms = [arm_means(m, base, where, settings)[0] for m in means]
    while True:
        pairs = [(i, j) for i in range(len(clones)) for j in range(i + 1, len(clones))]
        pairs = [p for p in pairs if frozenset((names[p[0]], names[p[1]])) not in differ]
        if not pairs:
            return clones
        i, j = max(pairs, key=lambda p: (float(np.corrcoef(arms[p[0]], arms[p[1]])[0, 1]), -p[0], -p[1]))
        large, small = (i, j) if cells[i] >= cells[j] else (j, i)
        if scaled_difference(means[small], means[large], base, where, settings).p <= max_p:
            differ.add(frozenset((names[i], names[j])))
            continue
        means[i] = (means[i] * cells[i] + means[j] * cells[j]) / (cells[i] + cells[j])
        clones[i], cells[i], names[i] = clones[i] | clones[j], cells[i] + cells[j], max(names) + 1
        arms[i] = arm_means(means[i], base, where, settings)[0]
        del clones[j], means[j], cells[j], names[j], arms[j]
