"""How far a mean over patients can be trusted: leave one out, and power.  See docs/crosstalk.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nicheloop import stats

POWER = 0.8


def detectable_rho(n: int, alpha: float, power: float = POWER) -> float:
    """Smallest |rho| that a two-sided test finds in `n` patients with that power (Fisher z); NaN below 4 patients."""
    from scipy.special import ndtri

    if n < 4:
        return float("nan")
    return float(np.tanh((ndtri(1 - alpha / 2) + ndtri(power)) / np.sqrt(n - 3)))


def detectable_effect(meta: stats.Meta, confidence: float, power: float = POWER) -> float:
    """Smallest difference from 0 that the interval of a random-effects mean excludes with that power.

    The standard error is that of the estimate at hand, so the number says what this cohort, with its spread between
    patients, could have shown.  NaN with fewer than two patients.
    """
    from scipy.special import stdtrit

    if meta.n < 2 or not np.isfinite(meta.high):
        return float("nan")
    t = float(stdtrit(meta.n - 1, 0.5 + confidence / 2))
    return float((t + stdtrit(meta.n - 1, power)) * (meta.high - meta.effect) / t)


@dataclass(frozen=True)
class LeaveOneOut:
    """Range of the mean when each patient is left out in turn, and how many of them its sign hangs on."""

    low: float
    high: float
    sign_changes: int


def leave_one_out(effects: ArrayLike, se: ArrayLike, confidence: float) -> LeaveOneOut:
    """Random-effects means without each patient in turn; NaN and 0 with fewer than three usable patients."""
    y, s = np.asarray(effects, dtype=float), np.asarray(se, dtype=float)
    use = np.isfinite(y) & np.isfinite(s) & (s > 0)
    y, s = y[use], s[use]
    if y.size < 3:
        return LeaveOneOut(np.nan, np.nan, 0)
    whole = stats.random_effects(y, s, confidence).effect
    left = [stats.random_effects(np.delete(y, i), np.delete(s, i), confidence).effect for i in range(y.size)]
    return LeaveOneOut(float(min(left)), float(max(left)), int(sum(np.sign(v) != np.sign(whole) for v in left)))
