"""Is CD44-high/CD24-low more than any two genes like them would show?  Pairs of stand-ins.  See docs/csc.md.

A stand-in is a gene with the mean and the detection of the marker in the sample's malignant cells.  Its counts are read
at the marker's rates (times the ratio of the two means), as it has no states of its own to estimate, and the four joint
weights are fitted as for CD44 and CD24.  What the pairs keep is how far any two genes of a tumour go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nicheloop import csc_model as model
from nicheloop.csc_model import Array, Rates

M_CSC = 2  # CD44 high, CD24 low
BATCH = 50  # pairs fitted together: bounds memory, not the result


@dataclass(frozen=True)
class Pairs:
    """Fractions and odds ratios of the pairs; where `status` is not ok there are none."""

    status: str
    reason: str
    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    fraction: Array | None = None
    log_odds: Array | None = None
    observed_fraction: float = float("nan")
    observed_log_odds: float = float("nan")


def log_odds(weights: Array, n: int) -> Array:
    """(...,) log odds ratio pi_11 pi_00 / (pi_10 pi_01), half a cell added to each weight so that it is finite."""
    w = weights + 0.5 / n
    return np.log(w[..., 3] * w[..., 0] / (w[..., 2] * w[..., 1]))


def stand_ins(
    mean: Array,
    detection: Array,
    allowed: NDArray[np.bool_],
    target: int,
    names: NDArray[np.str_],
    *,
    n: int,
    fold: float,
) -> NDArray[np.int64]:
    """Nearest genes to a marker in log mean and log odds of detection, at most `fold` away in each.

    Parameters
    ----------
    mean, detection
        (genes,) counts per 10,000, and share of cells with a count.
    allowed
        (genes,) genes that may stand in.
    target
        Column of the marker.
    names
        (genes,) unique names; they break ties.

    Returns
    -------
    At most `n` columns, nearest first.
    """
    inside = allowed & (mean > 0) & (detection > 0)
    share = np.clip(detection, 1e-6, 1 - 1e-6)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_mean = np.abs(np.log(mean) - np.log(mean[target]))
        by_odds = np.abs(np.log(share / (1 - share)) - np.log(share[target] / (1 - share[target])))
    inside &= (by_mean <= np.log(fold)) & (by_odds <= np.log(fold))
    inside[target] = False
    found = np.flatnonzero(inside)
    distance = np.round(by_mean[found] ** 2 + by_odds[found] ** 2, 9)
    return found[np.lexsort((names[found], distance))[:n]]


def _marker(rates: Rates, counts: Array, size: Array, mean: Array, marker_mean: float) -> Array:
    """(genes, 2, cells) log likelihood of stand-ins at the marker's rates times the ratio of the means."""
    return np.stack([rates.log_lik(row, size * (m / marker_mean)) for row, m in zip(counts, mean, strict=True)])


def matched_pairs(
    counts: csc_matrix,
    genes: Sequence[str],
    arms: Sequence[str],
    size: Array,
    rates: tuple[Rates, Rates],
    *,
    n_pairs: int,
    n_genes: int,
    fold: float,
    seed: int,
    leave_out: Sequence[str] = (),
) -> Pairs:
    """Fit the four joint weights of pairs of stand-ins for CD44 and CD24.

    Parameters
    ----------
    counts
        (cells, genes) UMI of malignant cells.
    genes, arms
        (genes,) symbols and chromosome arms (empty: not placed on an autosome; such genes do not stand in).
    size
        (cells,) library sizes in 10,000 UMI.
    rates
        Rates of CD44 and of CD24 in this sample.
    n_pairs, n_genes, fold, seed
        Pairs to draw; stand-ins of each marker and how far they may be; the stream.
    leave_out
        Further genes that do not stand in.

    Returns
    -------
    `Pairs`: ``ok``, or ``too_few_matched_genes``.  Genes on the arms of either marker never stand in, and the two genes
    of a pair lie on different arms: one copy number must not move both.
    """
    names = np.asarray(genes, dtype=object).astype(str)
    arm = np.asarray(arms, dtype=object).astype(str)
    markers = [int(np.flatnonzero(names == g)[0]) for g in ("CD44", "CD24")]
    total = float(size.sum())
    mean = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() / total
    detection = np.asarray((counts > 0).sum(axis=0), dtype=np.float64).ravel() / counts.shape[0]
    allowed = (arm != "") & ~np.isin(arm, arm[markers]) & ~np.isin(names, [*leave_out, "CD44", "CD24"])
    if min(mean[markers]) <= 0:
        return Pairs("marker_not_detected", "CD44 or CD24 is seen in no malignant cell: there is nothing to match")
    pools = [stand_ins(mean, detection, allowed, m, names, n=n_genes, fold=fold) for m in markers]
    first, second = (index.ravel() for index in np.meshgrid(*pools, indexing="ij"))
    usable = (first != second) & (arm[first] != arm[second])
    first, second = first[usable], second[usable]
    if len(first) < n_pairs:
        reason = (
            f"{len(pools[0])} genes like CD44 and {len(pools[1])} like CD24 (within {fold:g}-fold in mean and odds of "
            f"detection) make {len(first)} pairs; {n_pairs} are needed"
        )
        return Pairs("too_few_matched_genes", reason)
    chosen = np.sort(np.random.default_rng(seed).choice(len(first), n_pairs, replace=False))
    first, second = first[chosen], second[chosen]
    likelihood, row = [], []
    for pool, marker, rate in zip(pools, markers, rates, strict=True):
        columns = np.append(pool, marker)
        dense = np.asarray(counts[:, columns].todense(), dtype=np.float64).T
        likelihood.append(_marker(rate, dense, size, mean[columns], float(mean[marker])))
        row.append({int(c): i for i, c in enumerate(columns)})
    n = counts.shape[0]
    a = np.array([row[0][int(g)] for g in [*first, markers[0]]])
    b = np.array([row[1][int(g)] for g in [*second, markers[1]]])
    weights = np.concatenate([
        model.fit_weights(
            model.joint_log_likelihood(likelihood[0][a[i : i + BATCH]], likelihood[1][b[i : i + BATCH]]),
            tolerance=1e-4, max_cycles=200,
        )[0]
        for i in range(0, len(a), BATCH)
    ])  # fmt: skip
    odds = log_odds(weights, n)
    return Pairs(
        "ok", f"{n_pairs} pairs of {len(np.unique(first))} and {len(np.unique(second))} stand-ins, {n} cells",
        tuple(names[first]), tuple(names[second]), weights[:-1, M_CSC], odds[:-1],
        float(weights[-1, M_CSC]), float(odds[-1]),
    )  # fmt: skip
