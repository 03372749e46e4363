"""A contrast beyond a covariate that is measured with noise.  See docs/loop.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CERTAIN = 0.01  # the halves must agree within label: otherwise the slope on what they share is not known


@dataclass(frozen=True)
class Beyond:
    """Difference that the covariate does not explain.

    Attributes
    ----------
    effect : in units of the read-out; NaN where the slope is not known
    p : one-sided (greater); NaN where the slope is not known
    difference_p : two-sided p of the covariate itself between the labels
    reliability : share of the covariate's variance within label and stratum that is not noise
    follows : whether the covariate differs between the labels, and could move the read-out the same way:
        it is not certain that within the labels the two go the opposite way
    """

    effect: float
    p: float
    difference_p: float
    reliability: float
    follows: bool


def beyond_noisy(
    y: Floats,
    halves: Floats,
    label: NDArray[np.bool_],
    strata: NDArray[np.int64],
    *,
    n_bootstrap: int,
    alpha: float,
    seed: int,
) -> Beyond | None:
    """Ask whether `y` differs between labels more than a covariate explains that is seen through two noisy halves.

    Parameters
    ----------
    y, label, strata
        (cells,) read-out, label, stratum; no NaN.  The draws follow the order of the cells: sort them first.
    halves
        (cells, 2) two measurements of the covariate whose noise is independent, as by disjoint halves of its genes.
    n_bootstrap, seed
        Draws of cells within stratum and label.
    alpha
        Level at which the covariate differs, for `Beyond.follows`.

    Returns
    -------
    `Beyond`; None where no stratum holds both labels.

    Notes
    -----
    A regression on one noisy measurement removes only its reliable share.  With s the mean of the halves, K the
    covariance of y and s and C that of the two halves, both within stratum and label, K / C is the slope on the
    covariate without noise (an instrumental variable; Fuller 1987 doi:10.1002/9780470316665).  The statistic is
    U = C dy - K ds, whose sign is that of dy - (K / C) ds and which has no denominator; its standard error is that of
    a bootstrap that estimates K and C anew, so the uncertainty of the slope is part of p.
    """
    from scipy.stats import norm

    group = np.unique(np.column_stack([strata, label]), axis=0, return_inverse=True)[1].reshape(-1)
    of = np.unique(np.column_stack([strata, label]), axis=0)
    pairs = [(a, b) for a in range(len(of)) for b in range(len(of)) if of[a, 0] == of[b, 0] and of[a, 1] > of[b, 1]]
    if not pairs:
        return None
    s1, s2 = halves.T
    s = (s1 + s2) / 2
    columns = np.column_stack([np.ones_like(y), y, s, s1, s2, y * s, s1 * s2, s * s])
    rng = np.random.default_rng(seed)
    sums = np.zeros((n_bootstrap + 1, len(of), columns.shape[1]))
    for g in range(len(of)):
        cells = np.flatnonzero(group == g)
        weights = rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=n_bootstrap)
        sums[0, g], sums[1:, g] = columns[cells].sum(axis=0), weights @ columns[cells]
    n, sy, ss, sa, sb, sys, sab, sss = np.moveaxis(sums, 2, 0)
    size = n[0]
    scale = size / np.maximum(size - 1, 1)  # a bootstrap sample varies less than the cells it is drawn from
    k = ((sys - sy * ss / n) * scale).sum(axis=1) / len(y)
    c = ((sab - sa * sb / n) * scale).sum(axis=1) / len(y)
    v = ((sss - ss * ss / n) * scale).sum(axis=1) / len(y)
    high, low = np.array(pairs).T
    weight = size[high] * size[low] / (size[high] + size[low])
    dy = (sy / n)[:, high] @ weight / weight.sum() - (sy / n)[:, low] @ weight / weight.sum()
    ds = (ss / n)[:, high] @ weight / weight.sum() - (ss / n)[:, low] @ weight / weight.sum()
    u = c * dy - k * ds

    def above(x: Floats) -> float:
        """One-sided p of a statistic by its bootstrap standard error."""
        return float(norm.sf(x[0] / max(x[1:].std(ddof=1), np.finfo(float).tiny)))

    difference_p = 2 * min(above(ds), above(-ds))
    reliability = float(np.clip(c[0] / v[0], 0.0, 1.0)) if v[0] > 0 else 0.0
    follows = difference_p < alpha and above(-k * np.sign(ds[0])) >= CERTAIN
    if not (c[0] > 0 and above(c) < CERTAIN):
        return Beyond(np.nan, np.nan, difference_p, reliability, follows)
    p = max(above(u), 1 / (n_bootstrap + 1))
    return Beyond(float(u[0] / c[0]), p, difference_p, reliability, follows)
