"""From copy-number groups to single cells: noise, posterior, cuts and the three-way call.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import cnv
from nicheloop.cnv_neighbours import Neighbourhood, pooled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nicheloop.cnv import Bools, Floats, Ints
    from nicheloop.config_malignancy import Malignancy

MAD_TO_SD = 1.4826
SMALLEST_VARIANCE = 1e-3  # of the value, where 1 is a typical malignant cell: keeps the odds finite


def noise(halves_differ: Floats) -> Floats:
    """(cells,) variance of a profile's windows due to the genes sampled: mean square of half-profile differences / 4.

    Parameters
    ----------
    halves_differ
        (cells, windows) profile from half of the genes minus that from the rest, centred within like cells.
    """
    return np.asarray(np.mean(halves_differ.astype(np.float64) ** 2, axis=1) / 4)


def spread_of(value: Floats, level: Floats, centre: float) -> float:
    """Robust variance of ``value - centre`` in units of the cells' own noise; 0 for fewer than two cells."""
    used = level > 0
    if used.sum() < 2:
        return 0.0
    scaled = (value[used] - centre) / np.sqrt(level[used])
    return float((MAD_TO_SD * np.median(np.abs(scaled))) ** 2)


def log_odds(value: Floats, level: Floats, spread: float, middle: float) -> Floats:
    """Log odds that a cell carries the tumour's signal (value about 1) rather than none (about 0), equal noise.

    Parameters
    ----------
    value, level
        (cells,) amplitude, and the noise of the cell's profile.
    spread
        Variance of `value` per unit of `level`; see `spread_of`.
    middle
        Value at which both are as likely.
    """
    variance = np.maximum(spread * level, SMALLEST_VARIANCE)
    return np.asarray((value - middle) / variance)


def rescaled(value: Floats, share: Floats, cells: Bools, level: Floats) -> Floats:
    """Values on the scale where the normal cells' weighted mean is 0 and the malignant ones' 1.

    Parameters
    ----------
    value, level
        (all cells,) amplitude and noise.
    share, cells
        Probability of each of the `cells` (all cells,) that it is malignant.
    """
    own, weight = value[cells], 1 / np.maximum(level[cells], 1e-12)
    high = np.average(own, weights=weight * share) if share.sum() > 0 else 1.0
    low = np.average(own, weights=weight * (1 - share)) if (1 - share).sum() > 0 else 0.0
    return np.asarray((value - low) / (high - low)) if high > low else value


@dataclass(frozen=True)
class Kinds:
    """Where normal and malignant epithelium lie on the tumour's axis, and the evidence that there are two kinds.

    ``low`` and ``high`` are the means, ``low_share`` the share of cells of the lower kind, ``gain`` twice the log
    likelihood ratio of two kinds over one.
    """

    low: float
    high: float
    low_share: float
    gain: float


def two_kinds(value: Floats, level: Floats, spread: float, max_low: float, n_rounds: int = 200) -> Kinds:
    """Two normal distributions of known noise fitted to the values of epithelial cells.

    Normal epithelium does not lie at 0 where the baseline is another patient's or stroma: what the epithelium of the
    sample shares moves it up the tumour's axis, and a border half way between 0 and 1 then lets it pass.

    Parameters
    ----------
    value, level, spread
        (cells,) amplitude and noise of the profile; variance of the value per unit of noise.
    max_low
        Largest mean of the lower kind: weaker clones above it are no normal cells.

    Returns
    -------
    Kinds; one kind (share 0, gain 0) for fewer than three cells.
    """
    n = len(value)
    variance = np.maximum(spread * level, SMALLEST_VARIANCE)
    weight = 1 / variance
    if n < 3:
        return Kinds(0.0, 1.0, 0.0, 0.0)
    one = float(np.average(value, weights=weight))
    low, high, share = 0.0, max(1.0, one), 0.5
    for _ in range(n_rounds):
        odds = np.log((1 - share) / share) + ((value - low) ** 2 - (value - high) ** 2) / (2 * variance)
        lower = 1 / (1 + np.exp(np.clip(odds, -500, 500)))
        if lower.sum() < SMALLEST_VARIANCE or lower.sum() > n - SMALLEST_VARIANCE:
            return Kinds(0.0, one, 0.0, 0.0)
        new = (
            min(float(np.average(value, weights=weight * lower)), max_low),
            float(np.average(value, weights=weight * (1 - lower))),
            float(np.clip(lower.mean(), 1e-6, 1 - 1e-6)),
        )
        done = max(abs(a - b) for a, b in zip(new, (low, high, share), strict=True)) < 1e-6
        low, high, share = new
        if done or high <= low:
            break
    if high <= low:
        return Kinds(0.0, one, 0.0, 0.0)
    parts = [np.log(s) - (value - m) ** 2 / (2 * variance) for s, m in ((share, low), (1 - share, high))]
    gain = 2 * float((np.logaddexp(*parts) + (value - one) ** 2 / (2 * variance)).sum())
    return Kinds(low, high, share, gain)


def posterior(odds: Floats, near: Neighbourhood, *, n_rounds: int, floor: float) -> Floats:
    """Probability of each cell from its own log odds and the share of malignant cells among those it resembles.

    Expectation-maximisation of a mixture whose weight is local: the mean probability of the nearest neighbours (never
    the cell itself) and of the cell's small cluster, half and half.  Few neighbours follow a border closely but are
    noisy; the cluster is steady.

    Parameters
    ----------
    odds
        (cells,) own log odds.
    near
        Neighbours and small clusters.
    n_rounds, floor
        Rounds; the weight is kept within ``[floor, 1 - floor]``, so that clear own evidence always wins.

    Returns
    -------
    (cells,) probability.
    """
    own = np.clip(odds, -500, 500)
    out = 1 / (1 + np.exp(-own))
    size = np.bincount(near.atoms)
    for _ in range(n_rounds):
        cluster = (np.bincount(near.atoms, weights=out)[near.atoms] - out) / np.maximum(size[near.atoms] - 1, 1)
        prior = np.clip((pooled(out, near.indices) + cluster) / 2, floor, 1 - floor)
        out = 1 / (1 + np.exp(-np.clip(own + np.log(prior / (1 - prior)), -500, 500)))
    return np.asarray(out)


@dataclass(frozen=True)
class Verdict:
    """(cells,) each: malignant, normal; what is neither stays unassigned."""

    malignant: Bools
    normal: Bools


def verdict(above: Bools, below: Bools, probability: Floats, sure: float) -> Verdict:
    """Combine a cell's own two metrics with its posterior.

    Parameters
    ----------
    above, below
        (cells,) both metrics above their cuts; both below.
    probability
        (cells,) posterior; see `posterior`.
    sure
        Probability from which the posterior counts as malignant, and 1 - sure as normal.

    Returns
    -------
    Malignant: the posterior is sure (also of a shallow cell whose own metrics stay below their cuts), or both metrics
    are above and the posterior leans the same way.  Normal: the posterior is sure and the metrics are not both above,
    or both are below and the posterior leans the same way.
    """
    yes, no = probability >= sure, probability <= 1 - sure
    return Verdict(yes | (above & (probability > 0.5)), (no & ~above) | (below & (probability < 0.5)))


def held_out_passes(correlation: Floats, value: Floats, options: Malignancy) -> Bools:
    """Null cells whose two metrics would both pass if the cuts were set without them.

    The cuts of the call let at most ``max_reference_fpr`` of the null cells pass by construction, so counting the same
    cells says nothing of fresh ones.  Each cell is held out of its own cuts instead; see `cnv.held_out_cuts`.  Of n
    cells at least about 1 / n must be expected to pass one cut.

    Parameters
    ----------
    correlation, value
        (null cells,) both metrics; value is NaN where no group is aneuploid (no cell passes).
    """
    rate = options.max_reference_fpr
    cut_v = np.maximum(options.min_signal, cnv.held_out_cuts(value, rate))
    return np.asarray((correlation > cnv.held_out_cuts(correlation, rate)) & (value > cut_v))


def number_clones(nearest: Ints, malignant: Bools, cell_ids: NDArray[np.object_]) -> Ints:
    """(cells,) clone of malignant cells, 1 = largest, ties by the first cell id; 0 for other cells."""
    out = np.zeros(len(nearest), dtype=np.int64)
    names = np.unique(nearest[malignant])
    key = {k: (-int((malignant & (nearest == k)).sum()), min(cell_ids[malignant & (nearest == k)])) for k in names}
    for number, k in enumerate(sorted(names, key=lambda k: key[k]), start=1):
        out[malignant & (nearest == k)] = number
    return out
