"""The gamma-Poisson model behind `nicheloop.csc`: emissions, rates, weights, posteriors, bootstrap.  See docs/csc.md.

Pure functions on arrays.  ``size`` is a cell's library in units of 10,000 UMI, so a rate is in UMI per 10,000.  Sums
over cells use numpy alone (no BLAS), so that results do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Limits of the search, not thresholds of a decision: far outside anything seen in UMI data.
RATE_FLOOR = 1e-3
RATE_CEILING = 1e4
SHAPE_CEILING = 100.0
LOGIT_LIMIT = 9.0
EFFECT_LIMIT = 10.0


def log_emission(counts: Array, size: Array, rate: float | Array, shape: float) -> Array:
    """Log probability of counts under a gamma-Poisson (negative binomial) law with mean ``rate * size``.

    Parameters
    ----------
    counts
        (..., cells) UMI of one gene, whole numbers.
    size
        (cells,) library size in 10,000 UMI, times the covariate effect where there is one.
    rate
        UMI per 10,000.
    shape
        Gamma shape of the expression within a state; variance = mean + mean^2 / shape.

    Returns
    -------
    (..., cells) log probability.
    """
    from scipy.special import gammaln

    mean = np.maximum(rate * size, 1e-12)
    x = counts.astype(np.int64)
    k = np.arange(int(x.max(initial=0)) + 1, dtype=np.float64)
    constant = gammaln(k + shape) - gammaln(shape) - gammaln(k + 1)  # a table: counts are few distinct numbers
    return constant[x] - shape * np.log1p(mean / shape) + counts * (np.log(mean) - np.log(mean + shape))


def zero_probability(size: Array, rate: float, shape: float) -> Array:
    """Probability that a cell of a state shows no count: ``(1 + rate * size / shape) ** -shape``; (cells,)."""
    return np.exp(-shape * np.log1p(rate * size / shape))


def state_log_likelihood(counts: Array, size: Array, low: float, high: float, shape: float) -> Array:
    """(..., 2, cells) log likelihood of the low and the high state of one gene."""
    return np.stack([log_emission(counts, size, low, shape), log_emission(counts, size, high, shape)], axis=-2)


def joint_log_likelihood(first: Array, second: Array) -> Array:
    """(..., 4, cells) log likelihood of low/low, low/high, high/low, high/high from two (..., 2, cells) arrays."""
    joint = first[..., :, None, :] + second[..., None, :, :]
    return joint.reshape(*joint.shape[:-3], 4, joint.shape[-1])


def fit_weights(
    log_lik: Array, *, start: Array | None = None, tolerance: float = 1e-7, max_cycles: int = 2000
) -> tuple[Array, Array]:
    """Fit the mixing weights of fixed components by EM.

    Accelerated by squared extrapolation (SQUAREM, doi 10.1111/j.1467-9469.2007.00585.x).
    The likelihood is concave in the weights, so the maximum is unique wherever the data tell the states apart.

    Parameters
    ----------
    log_lik
        (..., states, cells) log likelihoods; leading axes are fitted independently.
    start
        (..., states) start values; a state that starts at 0 stays at 0.
    tolerance
        Largest change of a weight in one EM step at which a fit ends.

    Returns
    -------
    weights (..., states), and the log likelihood (...,) at them.
    """
    shift = log_lik.max(axis=-2, keepdims=True)
    lik = np.exp(log_lik - shift)
    batch, states, cells = lik.shape[:-2], lik.shape[-2], lik.shape[-1]
    offset = shift.sum(axis=(-2, -1)).reshape(-1)
    lik = lik.reshape(int(np.prod(batch)), states, cells)
    w = np.full((len(lik), states), 1.0 / states) if start is None else np.array(start, dtype=float).reshape(-1, states)
    if cells == 0:
        return w.reshape(*batch, states), np.zeros(batch)

    def step(weights: Array, part: Array) -> tuple[Array, Array]:
        mix = np.einsum("bsn,bs->bn", part, weights)
        new = weights * np.einsum("bsn,bn->bs", part, 1.0 / mix) / cells
        return new, np.log(mix).sum(axis=-1)

    active = np.arange(len(lik))
    part = lik
    for _ in range(max_cycles):
        w0 = w[active]
        w1, _ = step(w0, part)
        w2, reached = step(w1, part)
        r = w1 - w0
        v = w2 - w1 - r
        norm = np.sqrt((v**2).sum(axis=1))
        alpha = np.maximum(1.0, np.divide(np.sqrt((r**2).sum(axis=1)), norm, out=np.ones_like(norm), where=norm > 0))
        guess = w0 + 2 * alpha[:, None] * r + (alpha**2)[:, None] * v
        guess = np.maximum(guess, 0.1 * w2)  # stays inside, and a vanishing state may come back
        guess /= guess.sum(axis=1, keepdims=True)
        w3, likelihood = step(guess, part)
        w[active] = np.where((likelihood >= reached)[:, None], w3, w2)
        moving = np.abs(w2 - w1).max(axis=1) > tolerance
        if not moving.any():
            break
        if not moving.all():
            active, part = active[moving], part[moving]
    w /= w.sum(axis=1, keepdims=True)
    total = np.log(np.einsum("bsn,bs->bn", lik, w)).sum(axis=-1) + offset
    return w.reshape(*batch, states), total.reshape(batch)


def posterior(log_lik: Array, weights: Array) -> Array:
    """(states, cells) probability of each state given the counts; `log_lik` (states, cells), `weights` (states,)."""
    with np.errstate(divide="ignore"):
        joint = log_lik + np.log(weights)[:, None]
    joint = np.exp(joint - joint.max(axis=0, keepdims=True))
    return joint / joint.sum(axis=0, keepdims=True)


@dataclass(frozen=True)
class Rates:
    """Rates of the two states of a gene (UMI per 10,000), their common shape, and how well they are known."""

    low: float
    high: float
    shape: float
    log_low_se: float = 0.0
    log_high_se: float = 0.0
    bic_gain: float = float("nan")
    bic_gain_samples: float = float("nan")
    effect: float = float("nan")
    centre: float = float("nan")
    effect_se: float = float("nan")

    def log_lik(self, counts: Array, size: Array) -> Array:
        """(..., 2, cells) log likelihood of the low and the high state."""
        return state_log_likelihood(counts, size, self.low, self.high, self.shape)

    def low_in(self, ambient: Array) -> Array:
        """Low rate where ambient RNA alone gives the rate `ambient` (NaN: not known): the larger of the two."""
        return np.fmax(self.low, ambient)

    def adjusted_size(self, size: Array, covariate: Array) -> Array:
        """Library size times the fitted effect of a covariate; a cell without the covariate keeps its size."""
        if not np.isfinite(self.effect):
            return size
        return size * np.exp(self.effect * np.nan_to_num(covariate - self.centre))


def _gradients(counts: Array, size: Array, log_rate: float | Array, log_shape: float) -> tuple[Array, Array, Array]:
    """Log emission and its derivatives by the log rate (one, or one per cell) and the log shape; (cells,) each."""
    from scipy.special import digamma

    shape = float(np.exp(log_shape))
    mean = np.maximum(np.exp(log_rate) * size, 1e-12)
    value = log_emission(counts, size, np.exp(log_rate), shape)
    by_rate = shape * (counts - mean) / (mean + shape)
    k = np.arange(int(counts.max(initial=0)) + 1, dtype=np.float64)
    table = digamma(k + shape) - digamma(shape)
    by_shape = shape * (table[counts.astype(np.int64)] - np.log1p(mean / shape) + (mean - counts) / (mean + shape))
    return value, by_rate, by_shape


def _mixture(
    theta: Array, counts: Array, size: Array, group: NDArray[np.int64], log_ambient: Array
) -> tuple[float, Array]:
    """Mean negative log likelihood and gradient; theta = log low, log(high / low), log shape, a logit per sample.

    `log_ambient` (cells,): log rate that ambient RNA alone gives in the cell's sample; -inf where not known.
    """
    low, rise, shape = theta[:3]
    logit = theta[3:][group]
    f0, r0, s0 = _gradients(counts, size, np.maximum(low, log_ambient), shape)
    r0 = np.where(low >= log_ambient, r0, 0.0)  # under the ambient rate the low rate is out of sight
    f1, r1, s1 = _gradients(counts, size, low + rise, shape)
    a = f0 - np.logaddexp(0.0, logit)
    b = f1 - np.logaddexp(0.0, -logit)
    total = np.logaddexp(a, b)
    p = np.exp(b - total)  # responsibility of the high state
    slope = np.bincount(group, weights=p - 1.0 / (1.0 + np.exp(-logit)), minlength=len(theta) - 3)
    head = [((1 - p) * r0 + p * r1).sum(), (p * r1).sum(), ((1 - p) * s0 + p * s1).sum()]
    n = len(counts)
    return -float(total.sum()) / n, -np.concatenate([head, slope]) / n


def _standard_errors(theta: Array, free: NDArray[np.bool_], *data: Array) -> tuple[float, float]:
    """Give standard errors of log low and log high from the observed information, weights and shape profiled out.

    The weight block is diagonal (a sample's weight touches its own cells only), so four gradient pairs give everything.
    """
    n = len(data[0])
    step = 1e-4

    def column(direction: Array) -> Array:
        up, down = (_mixture(theta + sign * step * direction, *data)[1] for sign in (1, -1))  # type: ignore[arg-type]
        return n * (up - down) / (2 * step)

    unit = np.eye(len(theta))
    head = np.stack([column(unit[i]) for i in range(3)])  # (3, 3 + samples)
    diagonal = column(np.concatenate([np.zeros(3), np.ones(len(theta) - 3)]))[3:]
    keep = (diagonal > 1e-8) & (np.abs(theta[3:]) < LOGIT_LIMIT - 1e-3)
    cross = head[:, 3:][:, keep]
    information = head[:, :3] - (cross / diagonal[keep]) @ cross.T
    information = (information + information.T)[np.ix_(free, free)] / 2
    covariance = np.zeros((3, 3))
    covariance[np.ix_(free, free)] = np.linalg.pinv(information)
    low, high = covariance[0, 0], covariance[0, 0] + covariance[1, 1] + 2 * covariance[0, 1]
    return float(np.sqrt(max(low, 0.0))), float(np.sqrt(max(high, 0.0)))


def fit_one_component(counts: Array, size: Array, shape: float, min_shape: float) -> tuple[float, float, float]:
    """Rate, shape and log likelihood of one gamma-Poisson component with the library size as offset."""
    from scipy.optimize import minimize

    def loss(theta: Array) -> tuple[float, Array]:
        f, r, s = _gradients(counts, size, theta[0], theta[1])
        return -float(f.mean()), -np.array([r.mean(), s.mean()])

    start = [np.log(max(counts.sum() / size.sum(), RATE_FLOOR)), np.log(shape)]
    limits = [(np.log(RATE_FLOOR), np.log(RATE_CEILING)), (np.log(min_shape), np.log(SHAPE_CEILING))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-13, "gtol": 1e-8})
    return float(np.exp(found.x[0])), float(np.exp(found.x[1])), -float(found.fun) * len(counts)


def fit_sample_rates(
    counts: Array, size: Array, group: NDArray[np.int64], shape: float, min_shape: float
) -> tuple[float, float]:
    """Log likelihood and shape of one component with a rate per sample and a common shape."""
    from scipy.optimize import minimize

    samples, n = int(group.max()) + 1, len(counts)

    def loss(theta: Array) -> tuple[float, Array]:
        mean = np.exp(theta[1:])[group] * size
        f, r, s = _gradients(counts, mean, 0.0, theta[0])
        return -float(f.mean()), -np.concatenate([[s.sum()], np.bincount(group, weights=r, minlength=samples)]) / n

    rate = np.bincount(group, weights=counts, minlength=samples) / np.bincount(group, weights=size, minlength=samples)
    start = np.log([max(shape, min_shape), *np.clip(rate, RATE_FLOOR, RATE_CEILING)])
    limits = [(np.log(min_shape), np.log(SHAPE_CEILING)), *[(np.log(RATE_FLOOR), np.log(RATE_CEILING))] * samples]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-12, "gtol": 1e-7})
    return -float(found.fun) * n, float(np.exp(found.x[0]))


def fit_rates(
    counts: Array,
    size: Array,
    group: NDArray[np.int64],
    *,
    shape: float,
    min_shape: float,
    floor: float = 0.0,
    low_start: float = 0.0,
    ambient: Array | None = None,
) -> Rates:
    """Two rates and a shape shared by all samples, with a free weight per sample, by maximum marginal likelihood.

    Parameters
    ----------
    counts, size
        (cells,) UMI of the gene; library size in 10,000 UMI.
    group
        (cells,) sample of each cell, 0 .. samples - 1.
    shape, min_shape
        Start value and lower bound of the gamma shape, for one component and for two.  Below 1 a gamma density is
        highest at zero: one such component imitates two states, so it is not taken for one state.
    floor
        The low rate is never below this (ambient RNA alone gives it), UMI per 10,000.
    low_start
        Start value of the low rate, such as that of cell types that do not make the gene.
    ambient
        (samples,) rate that ambient RNA alone gives in each sample, UMI per 10,000; NaN where not known.  The low state
        of a sample is never below it.

    Returns
    -------
    `Rates`; a standard error is 0 where the low rate rests on its floor.  `bic_gain` is the BIC of one component less
    that of two, `bic_gain_samples` that of one component with a rate per sample less that of two.
    """
    from scipy.optimize import minimize

    order = np.lexsort((counts, size, group))  # the same cells in another order give the same bytes
    counts, size, group = counts[order], size[order], group[order]
    samples = int(group.max()) + 1
    log_ambient = np.full(len(counts), -np.inf) if ambient is None else _log_ambient(ambient)[group]
    rate1, _, loglik1 = fit_one_component(counts, size, shape, min_shape)
    floor = float(np.clip(floor, RATE_FLOOR, max(rate1, RATE_FLOOR)))
    limits = [
        (np.log(floor), np.log(RATE_CEILING)), (0.0, np.log(RATE_CEILING / RATE_FLOOR)),
        (np.log(min_shape), np.log(SHAPE_CEILING)),
        *[(-LOGIT_LIMIT, LOGIT_LIMIT)] * samples,
    ]  # fmt: skip
    ranked = np.argsort(counts / size, kind="stable")
    best = None
    for share in (0.2, 0.5, 0.8):  # share of high cells at the start: rare, even, usual
        cut = len(ranked) - max(1, round(share * len(ranked)))
        below, above = ranked[:cut], ranked[cut:]
        bottom = counts[below].sum() / max(size[below].sum(), 1e-9)
        low = np.clip(max(bottom, low_start), floor, max(rate1, floor))
        high = max(counts[above].sum() / size[above].sum(), 2 * low)
        start = [np.log(low), np.log(high / low), np.log(shape), *[np.log(share / (1 - share))] * samples]
        found = minimize(
            _mixture, start, args=(counts, size, group, log_ambient), jac=True, method="L-BFGS-B", bounds=limits,
            options={"maxiter": 500, "ftol": 1e-11, "gtol": 1e-7},
        )  # fmt: skip
        if best is None or found.fun < best.fun - 1e-10:
            best = found
    assert best is not None
    theta, n = best.x, len(counts)
    free = np.array([lo + 1e-6 < value < hi - 1e-6 for value, (lo, hi) in zip(theta[:3], limits[:3], strict=True)])
    errors = _standard_errors(theta, free, counts, size, group, log_ambient)  # type: ignore[arg-type]
    loglik2 = -float(best.fun) * n
    # Two components with one weight for all samples compete too: samples that agree must not count against them.
    pooled = minimize(
        _mixture, [*theta[:3], float(np.median(theta[3:]))], args=(counts, size, np.zeros_like(group), log_ambient),
        jac=True, method="L-BFGS-B", bounds=limits[:4], options={"maxiter": 500, "ftol": 1e-11, "gtol": 1e-7},
    )  # fmt: skip
    two = min(-2 * loglik2 + (3 + samples) * np.log(n), 2 * float(pooled.fun) * n + 4 * np.log(n))
    gain = (-2 * loglik1 + 2 * np.log(n)) - two
    own, _ = fit_sample_rates(counts, size, group, shape, min_shape)
    gain_samples = (-2 * own + (1 + samples) * np.log(n)) - two
    low, high, r = np.exp(theta[0]), np.exp(theta[0] + theta[1]), np.exp(theta[2])
    return Rates(float(low), float(high), float(r), *errors, bic_gain=float(gain), bic_gain_samples=float(gain_samples))


@dataclass(frozen=True)
class OneState:
    """One state with a rate and a shape of its own, against the two states at given rates, in one sample."""

    rate: float
    shape: float
    bic_gain: float  # BIC of one state less that of two; 0 or below: one state explains the sample as well


def one_state(counts: Array, size: Array, rates: Rates, *, min_shape: float) -> OneState:
    """Whether one state explains a sample as well as a mixture of the two states at `rates` with a free weight.

    A tumour that is purely of one state at its given rate keeps the mixture: the weight is at its edge and the single
    state has a parameter more.

    Parameters
    ----------
    counts, size
        (cells,) UMI of the gene and library size in 10,000 UMI of one sample.
    rates
        Rates and shape of the two states; held.
    min_shape
        Lower bound of the single state's shape, as in `fit_rates`.
    """
    order = np.lexsort((counts, size))
    counts, size = counts[order], size[order]
    rate, shape, loglik1 = fit_one_component(counts, size, max(rates.shape, min_shape), min_shape)
    _, loglik2 = fit_weights(rates.log_lik(counts, size))
    return OneState(rate, shape, float(2 * (float(loglik2) - loglik1) + np.log(max(len(counts), 1))))


def _log_ambient(ambient: Array) -> Array:
    """Log of the ambient rate; -inf where it is zero or not known."""
    known = np.isfinite(ambient) & (ambient > 0)
    return np.where(known, np.log(np.where(known, ambient, 1.0)), -np.inf)


def fit_effect(
    counts: Array,
    size: Array,
    group: NDArray[np.int64],
    covariate: Array,
    rates: Rates,
    ambient: Array | None = None,
) -> tuple[float, float, float]:
    """Log-linear effect of a covariate on the expected rate, with the two rates held and weights free per sample.

    Arguments as `fit_rates`; `covariate` (cells,).  Cells are centred on their common mean, so a sample that has more
    of the covariate as a whole is adjusted too.

    Returns
    -------
    The effect per unit of the covariate, the centre of the covariate at which the rates hold (its mean), and the
    standard error of the effect, weights profiled out; all NaN where fewer than two cells have the covariate or it does
    not vary.
    """
    from scipy.optimize import minimize

    known = np.isfinite(covariate)
    if known.sum() < 2 or np.ptp(covariate[known]) == 0:
        return float("nan"), float("nan"), float("nan")
    order = np.lexsort((covariate[known], counts[known], size[known], group[known]))
    x, s, z = counts[known][order], size[known][order], covariate[known][order]
    sample = group[known][order]
    g = np.unique(sample, return_inverse=True)[1]
    low = np.full(len(x), np.log(rates.low)) if ambient is None else np.log(rates.low_in(ambient))[sample]
    centre = float(z.mean())
    z = z - centre
    shape = float(np.log(rates.shape))

    def loss(theta: Array) -> tuple[float, Array]:
        adjusted = s * np.exp(theta[0] * z)
        logit = theta[1:][g]
        f0, r0, _ = _gradients(x, adjusted, low, shape)
        f1, r1, _ = _gradients(x, adjusted, np.log(rates.high), shape)
        a, b = f0 - np.logaddexp(0.0, logit), f1 - np.logaddexp(0.0, -logit)
        total = np.logaddexp(a, b)
        p = np.exp(b - total)
        slope = np.bincount(g, weights=p - 1.0 / (1.0 + np.exp(-logit)), minlength=len(theta) - 1)
        return -float(total.mean()), -np.concatenate([[(((1 - p) * r0 + p * r1) * z).sum()], slope]) / len(x)

    limits = [(-EFFECT_LIMIT, EFFECT_LIMIT), *[(-LOGIT_LIMIT, LOGIT_LIMIT)] * (int(g.max()) + 1)]
    found = minimize(
        loss, np.zeros(len(limits)), jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-11, "gtol": 1e-7}
    )
    step, unit = 1e-4, np.eye(len(limits))

    def column(direction: Array) -> Array:
        return len(x) * (loss(found.x + step * direction)[1] - loss(found.x - step * direction)[1]) / (2 * step)

    head, diagonal = column(unit[0]), column(np.concatenate([[0.0], np.ones(len(limits) - 1)]))[1:]
    keep = (diagonal > 1e-8) & (np.abs(found.x[1:]) < LOGIT_LIMIT - 1e-3)
    information = float(head[0] - (head[1:][keep] ** 2 / diagonal[keep]).sum())
    return float(found.x[0]), centre, float(1 / np.sqrt(information)) if information > 0 else float("nan")


@dataclass(frozen=True)
class Interval:
    """Ends of a bootstrap interval, and the estimate that a true fraction of zero would not exceed."""

    low: float
    high: float
    zero_limit: float


def bootstrap(
    genes: list[Rates],
    size: Array,
    weights: Array,
    state: int,
    *,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
    covariate: Array | None = None,
) -> Interval:
    """Parametric bootstrap of one weight: rates redrawn from their standard errors, counts simulated, weights refitted.

    Data are simulated under the redrawn rates and analysed with the estimated ones, as the sample itself was: the
    interval carries the error of the rates, not that of the counts alone.

    Parameters
    ----------
    genes
        One gene (2 states) or two (4 joint states).
    size
        (cells,) library sizes in 10,000 UMI.
    weights
        (states,) fitted weights to simulate from.
    state
        The weight asked for.
    n_bootstrap, confidence
        Samples, and the level of the interval.
    covariate
        (cells,) covariate less its centre, where `size` holds its effect (one gene): the effect is redrawn too.

    Returns
    -------
    `Interval`; `zero_limit` comes from the same procedure with the weight set to zero.
    """
    order = np.argsort(size, kind="stable") if covariate is None else np.lexsort((covariate, size))
    size = size[order]
    shift = None if covariate is None else np.nan_to_num(covariate)[order]

    def estimates(truth: Array) -> Array:
        drawn = rng.choice(len(truth), size=(n_bootstrap, len(size)), p=truth)
        parts = []
        for i, rates in enumerate(genes):
            high = (drawn >> (len(genes) - 1 - i)) & 1
            noise = rng.standard_normal((n_bootstrap, 2)) * [rates.log_low_se, rates.log_high_se]
            low_rate, high_rate = (np.array([rates.low, rates.high]) * np.exp(np.clip(noise, -3, 3))).T[:, :, None]
            mean = np.where(high == 1, high_rate, low_rate) * size
            if shift is not None and np.isfinite(rates.effect_se):
                drift = rng.standard_normal((n_bootstrap, 1)) * rates.effect_se
                mean = mean * np.exp(np.clip(drift * shift, -3, 3))
            counts = rng.poisson(rng.standard_gamma(rates.shape, mean.shape) * (mean / rates.shape)).astype(np.float64)
            parts.append(rates.log_lik(counts, size))
        log_lik = parts[0] if len(parts) == 1 else joint_log_likelihood(*parts)
        fitted, _ = fit_weights(log_lik, start=np.tile(start, (n_bootstrap, 1)), tolerance=1e-4, max_cycles=100)
        return fitted[:, state]

    start = 0.9 * weights + 0.1 / len(weights)  # near the answer, away from the edges
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates(weights), [tail, 1 - tail], method="weibull")  # (n + 1) p: the full tail
    none = weights.copy()
    none[state] = 0.0
    if none.sum() == 0:
        return Interval(float(low), float(high), 0.0)
    limit = np.quantile(estimates(none / none.sum()), 1 - tail, method="weibull")
    return Interval(float(low), float(high), float(limit))
