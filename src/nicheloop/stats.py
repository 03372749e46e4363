"""Shared statistics: exact bounds, permutation p-values, false discovery rate, meta-analysis, residuals.

Pure functions on arrays; NA is NaN.  Every p-value of the package comes from here or is built from these parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def bh(p: ArrayLike) -> Floats:
    """Benjamini-Hochberg adjusted p-values (doi:10.1111/j.2517-6161.1995.tb02031.x).

    Parameters
    ----------
    p
        (tests,) p-values; NaN means not tested, does not count as a test and stays NaN.

    Returns
    -------
    (tests,) adjusted values, at most 1.

    Raises
    ------
    ValueError
        If a value lies outside 0 to 1.
    """
    p = np.asarray(p, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    values = p[tested]
    if values.size == 0:
        return out
    if values.min() < 0 or values.max() > 1:
        raise ValueError("p-values must lie between 0 and 1")
    order = np.argsort(-values, kind="stable")
    ranks = np.arange(values.size, 0, -1)
    out[tested[order]] = np.minimum(np.minimum.accumulate(values[order] * values.size / ranks), 1.0)
    return out


def permutation_p(
    observed: ArrayLike, null: ArrayLike, *, alternative: str = "greater", tolerance: float = 1e-9
) -> Any:
    """Permutation p-value (b + 1) / (n + 1), never 0 (Phipson and Smyth, doi:10.2202/1544-6115.1585).

    Parameters
    ----------
    observed
        (tests,) statistics, or one number.
    null
        (permutations, tests) or (permutations,) statistics under permutation; NaN counts as at least as extreme.
    alternative
        ``greater``, ``less`` or ``two-sided`` (by absolute value).
    tolerance
        Relative difference below which two statistics are ties: rounding must not make a tie look like a win.

    Returns
    -------
    (tests,) p-values or one number; NaN where `observed` is NaN.
    """
    if alternative not in ("greater", "less", "two-sided"):
        raise ValueError(f"alternative '{alternative}': expected greater, less or two-sided")
    seen, drawn = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if alternative == "less":
        seen, drawn = -seen, -drawn
    elif alternative == "two-sided":
        seen, drawn = np.abs(seen), np.abs(drawn)
    slack = tolerance * np.maximum(np.abs(seen), 1e-300)
    b = (~(drawn < seen - slack)).sum(axis=0)
    p = np.where(np.isnan(seen), np.nan, (b + 1) / (drawn.shape[0] + 1))
    return float(p) if p.ndim == 0 else p


def wilson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, two-sided (doi:10.1080/01621459.1927.10502953).

    Returns
    -------
    (low, high); NaN where `n` is 0.
    """
    from scipy.special import ndtri

    if n <= 0:
        return np.nan, np.nan
    z = float(ndtri(0.5 + confidence / 2))
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if k <= 0 else max(0.0, centre - half)
    return float(low), float(1.0 if k >= n else min(1.0, centre + half))


def upper_bound(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Any:
    """Exact (Clopper-Pearson) one-sided upper bound of a proportion (doi:10.1093/biomet/26.4.404).

    With k = 0 this is 1 - (1 - confidence)^(1/n), close to the rule of three (3/n at 95 %).

    Returns
    -------
    Bound of the shape of `k` and `n` broadcast; NaN where n is 0.
    """
    from scipy.special import betaincinv

    hits, size = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if np.any((hits < 0) | (hits > size)):
        raise ValueError("k must lie between 0 and n")
    inside = hits < size
    out = np.where(size > 0, 1.0, np.nan)
    out[inside] = betaincinv(hits[inside] + 1, size[inside] - hits[inside], confidence)
    return float(out) if out.ndim == 0 else out


def rule_of_three(n: ArrayLike, confidence: float = 0.95) -> Any:
    """Exact upper bound of a proportion of which 0 in `n` were seen (about 3/n at 95 %)."""
    return upper_bound(np.zeros_like(np.asarray(n, dtype=np.float64)), n, confidence)


@dataclass(frozen=True)
class Meta:
    """Random-effects mean with its interval; NaN where it cannot be given."""

    effect: float
    low: float
    high: float
    tau2: float
    i2: float
    n: int


def _paule_mandel(y: Floats, v: Floats, max_iterations: int = 200) -> float:
    """Between-study variance at which Cochran's Q equals its degrees of freedom."""
    tau2 = 0.0
    for _ in range(max_iterations):  # Newton; Q falls monotonically in tau2
        w = 1 / (v + tau2)
        mean = np.sum(w * y) / np.sum(w)
        excess = np.sum(w * (y - mean) ** 2) - (y.size - 1)
        if excess <= 0 and tau2 == 0:
            return 0.0
        step = excess / np.sum(w**2 * (y - mean) ** 2)
        tau2 = max(0.0, tau2 + step)
        if abs(step) <= 1e-12 * max(tau2, 1e-12):
            break
    return float(tau2)


def random_effects(effects: ArrayLike, se: ArrayLike, confidence: float = 0.95) -> Meta:
    """Random-effects mean over patients: Paule-Mandel variance, Hartung-Knapp interval.

    Parameters
    ----------
    effects, se
        (patients,) estimates and their standard errors; rows with NaN or a standard error of 0 or less are left out.
    confidence
        Confidence of the interval.

    Returns
    -------
    `Meta`; with one estimate the interval is NaN, with none everything is.

    Notes
    -----
    The Hartung-Knapp scale is never below 1, so the interval is never narrower than the fixed-effect one with t
    quantiles (doi:10.1002/sim.791; truncation doi:10.1186/s12874-015-0091-1; Paule-Mandel doi:10.1002/jrsm.1164).
    """
    from scipy.special import stdtrit

    y, s = np.asarray(effects, dtype=np.float64), np.asarray(se, dtype=np.float64)
    use = np.isfinite(y) & np.isfinite(s) & (s > 0)
    y, v = y[use], s[use] ** 2
    if y.size == 0:
        return Meta(np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    if y.size == 1:
        return Meta(float(y[0]), np.nan, np.nan, np.nan, np.nan, 1)
    tau2 = _paule_mandel(y, v)
    w = 1 / (v + tau2)
    mean = float(np.sum(w * y) / np.sum(w))
    scale = max(1.0, float(np.sum(w * (y - mean) ** 2) / (y.size - 1)))
    half = float(stdtrit(y.size - 1, 0.5 + confidence / 2)) * np.sqrt(scale / np.sum(w))
    fixed = 1 / v
    q = float(np.sum(fixed * (y - np.sum(fixed * y) / np.sum(fixed)) ** 2))
    i2 = max(0.0, 1 - (y.size - 1) / q) if q > 0 else 0.0
    return Meta(mean, float(mean - half), float(mean + half), tau2, i2, int(y.size))


def residualise(y: ArrayLike, covariates: ArrayLike) -> Floats:
    """Residuals of least squares of `y` on covariates and an intercept, with the mean of `y` added back.

    Parameters
    ----------
    y
        (cells,) or (cells, variables).
    covariates
        (cells,) or (cells, covariates); a column that is entirely NaN is ignored.

    Returns
    -------
    Shape of `y`; NaN for cells with a NaN in `y` or in a used covariate.
    """
    y = np.asarray(y, dtype=np.float64)
    x = np.asarray(covariates, dtype=np.float64).reshape(len(y), -1)
    x = x[:, ~np.isnan(x).all(axis=0)] if len(y) else x
    out = np.full(y.shape, np.nan)
    columns = y.reshape(len(y), -1)
    use = ~np.isnan(columns).any(axis=1) & ~np.isnan(x).any(axis=1)
    if not use.any():
        return out
    design = np.column_stack([np.ones(int(use.sum())), x[use] - x[use].mean(axis=0)])
    fit = np.linalg.lstsq(design, columns[use], rcond=None)[0]
    out[use] = (columns[use] - design @ fit + columns[use].mean(axis=0)).reshape(out[use].shape)
    return out


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman rank correlation over pairs without NaN; NaN with fewer than 3 pairs or a constant side."""
    from scipy.stats import rankdata

    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    use = np.isfinite(a) & np.isfinite(b)
    if use.sum() < 3:
        return np.nan
    x, y = rankdata(a[use]), rankdata(b[use])
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / norm, -1, 1)) if norm > 0 else np.nan
