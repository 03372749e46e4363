"""CD44+/CD24- and ALDH1A3-high cells: a depth-aware posterior for every malignant cell.  See docs/csc.md."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_model as model
from nicheloop import io, patients
from nicheloop.csc_model import Array, Rates
from nicheloop.errors import NotAssessable, UserError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from nicheloop.config import Csc

GENES = ("CD44", "CD24", "ALDH1A3")
# Types that do not make the gene: what they show is ambient.  CD44 has none: stroma and immune cells make it.
NEGATIVE_TYPES = {"CD24": ("t_nk", "caf", "endothelial")}
CONTROL_TYPES = ("t_nk", "caf", "pvl", "myeloid", "endothelial")
UNIT = 1e4  # rates are UMI per 10,000
M_CSC = 2  # CD44 high, CD24 low among low/low, low/high, high/low, high/high
COVARIATE = "level_LP_covariate"  # a z is near 0 in every sample by construction: it could not tell tumours apart
MAX_REFITS = 5  # rates and the samples they rest on settle in two or three rounds
NOT_DISTINGUISHABLE = "not distinguishable from zero"


@dataclass(frozen=True)
class GeneRates:
    """One row of the rates table: rates, or the named reason there are none.

    As read for one sample (`rates_in_sample`) a status other than ok may keep its rates: those of the chemistry.
    """

    status: str
    reason: str
    n_cells: int = 0
    rates: Rates | None = None
    note: bool = False  # the reason says something of one sample


@dataclass(frozen=True)
class Assessment:
    """What the model says of one sample's malignant cells; arrays are (cells,) and None where not assessable."""

    status: str
    reason: str
    informative: np.ndarray | None = None
    weights: Array | None = None
    prob: Array | None = None
    log_lik: Array | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a posterior."""
        return self.status == "ok"

    @property
    def informative_fraction(self) -> float:
        """Share of informative cells; NaN where rates are not estimated or no cell is there."""
        known = self.informative is not None and len(self.informative) > 0
        return float(np.mean(self.informative)) if known else float("nan")  # type: ignore[arg-type]


def _absent(gene: str) -> str:
    return f"{gene.lower()}_absent_from_reference"


def _size(cells: pd.DataFrame) -> Array:
    return np.asarray(np.maximum(cells["n_counts"], 1.0), dtype=np.float64) / UNIT


def _umi(cells: pd.DataFrame, gene: str) -> Array:
    """(cells,) UMI of a gene, all NaN where the reference lacks it."""
    if f"umi_{gene}" not in cells:
        return np.full(len(cells), np.nan)
    return np.asarray(cells[f"umi_{gene}"], dtype=np.float64)


def _covariate(cells: pd.DataFrame) -> Array:
    return np.asarray(cells[COVARIATE], dtype=np.float64) if COVARIATE in cells else np.full(len(cells), np.nan)


# ----------------------------------------------------------------------------------------------------------- rates
def estimate_gene(
    gene: str,
    cells: pd.DataFrame,
    group: np.ndarray,
    *,
    floor: float,
    low_start: float,
    options: Csc,
    ambient: Array | None = None,
) -> GeneRates:
    """Rates of the low and the high state of one gene, or why there are none.

    Samples that one state of their own explains as well as a mixture at the common rates are left out and the rates
    fitted again, until the samples no longer change.

    Parameters
    ----------
    gene
        Symbol; counts are in column ``umi_<gene>`` (NaN: absent from the reference), library sizes in ``n_counts``.
    cells, group
        Malignant cells of one chemistry, and (cells,) their sample as integers.
    floor, low_start
        Lower bound and start value of the low rate (UMI per 10,000).
    ambient
        (samples,) ambient rate of each sample, by the integers of `group`; NaN where not estimated.

    Returns
    -------
    `GeneRates` with status ok, ``<gene>_absent_from_reference``, ``too_few_malignant`` or ``not_bimodal`` (the last
    with the continuous rates in its reason).
    """
    counts = _umi(cells, gene)
    known = np.isfinite(counts)
    if len(cells) and not known.any():
        return GeneRates(_absent(gene), f"{gene} is not in the reference of any sample of this chemistry")
    n = int(known.sum())
    if n < options.min_malignant:
        return GeneRates("too_few_malignant", f"{n} malignant cells, {options.min_malignant} needed", n)
    counts, size = counts[known], _size(cells)[known]
    samples, group = np.unique(group[known], return_inverse=True)
    group = group.astype(np.int64)
    if counts.sum() == 0:
        return GeneRates("not_bimodal", f"no {gene} count in {n} malignant cells", n)
    lowest = np.full(len(samples), np.nan) if ambient is None else ambient[samples]
    fit: dict[str, Any] = {"shape": options.shape, "min_shape": options.min_shape, "low_start": low_start}
    keep = _two_state_samples(counts, size, group, lowest, options)
    for left in reversed(range(MAX_REFITS)):
        cell = keep[group]
        part = np.unique(group[cell], return_inverse=True)[1].astype(np.int64)
        rates = model.fit_rates(counts[cell], size[cell], part, floor=floor, ambient=lowest[keep], **fit)
        now = np.array([_fits(counts[group == i], size[group == i], rates, a, options) for i, a in enumerate(lowest)])
        if (now == keep).all() or not now.any() or not left:
            break
        keep = now
    left_out, used = int((~keep).sum()), int(cell.sum())
    ratio = rates.high / rates.low
    mean, shape, _ = model.fit_one_component(counts, size, options.shape, options.min_shape)
    continuous = f"mean {mean:.3g} UMI per 10,000, shape {shape:.3g}"
    if rates.bic_gain < options.min_bic_gain or ratio < options.min_rate_ratio:
        reason = (
            f"one state explains {gene} as well: {continuous}; two states would "
            f"differ {ratio:.3g}-fold ({options.min_rate_ratio:g} needed) with a BIC gain of {rates.bic_gain:.3g} "
            f"({options.min_bic_gain:g} needed)"
        )
        return GeneRates("not_bimodal", reason, n)
    if not now.any():
        reason = f"one state explains {gene} as well in each of {len(keep)} samples: {continuous}"
        return GeneRates("not_bimodal", reason, n)
    if rates.bic_gain_samples < 0:
        reason = (
            f"one state of {gene} with a rate per sample fits better (BIC gain of two states "
            f"{rates.bic_gain_samples:.3g}): samples differ more than the cells within them; all cells: {continuous}"
        )
        return GeneRates("not_bimodal", reason, n)
    if gene == "ALDH1A3":
        effect, centre = model.fit_effect(
            counts[cell], size[cell], part, _covariate(cells)[known][cell], rates, lowest[keep]
        )
        rates = replace(rates, effect=effect, centre=centre)
    reason = (
        f"two states, {ratio:.3g}-fold apart, BIC gain {rates.bic_gain:.4g}; {used} cells, {int(keep.sum())} samples"
    )
    if left_out:
        reason += f"; {left_out} samples left out, which one state explains as well"
    return GeneRates("ok", reason, used, rates)


def _two_state_samples(counts: Array, size: Array, group: np.ndarray, ambient: Array, options: Csc) -> np.ndarray:
    """Choose the samples to start from, (samples,): those that show two states by themselves, else all.

    Started from all, many tumours of one state each would draw the rates to where they all fit a little.
    """
    own = np.zeros(len(ambient), dtype=bool)
    for i in range(len(own)):
        x, s = counts[group == i], size[group == i]
        if len(x) < options.min_malignant or x.sum() == 0:
            continue
        rates = model.fit_rates(
            x, s, np.zeros(len(x), dtype=np.int64), shape=options.shape, min_shape=options.min_shape,
            ambient=ambient[[i]],
        )  # fmt: skip
        own[i] = rates.bic_gain >= options.min_bic_gain and rates.high / rates.low >= options.min_rate_ratio
    return own if own.any() else np.ones(len(own), dtype=bool)


def _fits(counts: Array, size: Array, rates: Rates, ambient: float, options: Csc) -> bool:
    """Whether a sample's counts have two states at these rates, or one of the two alone."""
    here = replace(rates, low=float(rates.low_in(np.array(ambient))))
    if here.high < options.min_rate_ratio * here.low:
        return False
    one = model.one_state(counts, size, here, min_shape=options.min_shape)
    return _reading(one, here, options) in ("two", "low", "high")


def _reading(one: model.OneState, rates: Rates, options: Csc) -> str:
    """How a sample reads at these rates.

    ``two`` states; or one, purely ``low`` or ``high`` (within `pure_fold` of that rate and still `min_rate_ratio`-fold
    from the other), ``beyond`` both, ``between``.
    """
    if one.bic_gain > 0:
        return "two"
    for name, rate, other in (("low", rates.low, rates.high), ("high", rates.high, rates.low)):
        near = rate / options.pure_fold <= one.rate <= rate * options.pure_fold
        if near and max(one.rate / other, other / one.rate) >= options.min_rate_ratio:
            return name
    return "between" if rates.low < one.rate < rates.high else "beyond"


def rates_in_sample(
    sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc, ambient: dict[str, float] | None = None
) -> dict[str, GeneRates]:
    """Rates of a chemistry as they hold in one sample, or why they say nothing of it.

    The low rate is not below what ambient RNA of the sample gives.  Where one state with a rate of its own explains the
    malignant cells as well as the mixture (BIC), a tumour near the low or the high rate counts as purely low or high,
    with its own rate in place of that one; between the two the status is ``not_bimodal``.

    Parameters
    ----------
    sample
        Score table of the sample, all cells.
    rates
        gene -> `GeneRates` of the chemistry.
    ambient
        gene -> ambient rate of the sample (UMI per 10,000); NaN or left out: not known, the common low rate holds.
    """
    cells = sample[sample["compartment"] == "malignant"]
    size, out = _size(cells), dict(rates)
    for gene, found in rates.items():
        counts = _umi(cells, gene)
        if found.rates is None or found.status != "ok" or not np.isfinite(counts).all() or not len(cells):
            continue
        shared, own = found.rates, float((ambient or {}).get(gene, np.nan))
        here = replace(shared, low=float(shared.low_in(np.array(own))))
        if here.high < options.min_rate_ratio * here.low:
            reason = (
                f"ambient RNA alone gives {own:.3g} UMI per 10,000 of {gene}, the high state {shared.high:.3g}: "
                f"less than {options.min_rate_ratio:g}-fold apart"
            )
            out[gene] = GeneRates("hidden_by_ambient", reason, len(cells), shared)
            continue
        one = model.one_state(counts, size, here, min_shape=options.min_shape)
        reading, note = _reading(one, here, options), ""
        says = f"one state explains {gene} as well: mean {one.rate:.3g} UMI per 10,000, shape {one.shape:.3g}"
        if reading == "between":
            reason = f"{says}, between low ({here.low:.3g}) and high ({here.high:.3g}) of the chemistry"
            out[gene] = GeneRates("not_bimodal", reason, len(cells), here)
            continue
        if reading == "low":
            here, note = replace(here, low=max(here.low, one.rate)), f"{says}, purely low"
        elif reading == "high":
            here, note = replace(here, high=min(here.high, one.rate)), f"{says}, purely high"
        elif reading == "beyond":
            note = f"{says}, {'below' if one.rate < here.low else 'above'} both states"
        out[gene] = GeneRates("ok", note, len(cells), here, note=bool(note))
    return out


def estimate_rates(
    samples: list[pd.DataFrame], ambient: list[dict[str, float]], *, options: Csc
) -> dict[str, GeneRates]:
    """Rates of all marker genes from the samples of one chemistry.

    Parameters
    ----------
    samples
        Score tables (columns compartment, n_counts, umi_<gene>, level_LP_covariate), all cells; must hold counts.
    ambient
        gene -> ambient rate (UMI per 10,000) of each sample; empty where not estimated.
    """
    import pandas as pd

    malignant = [s[s["compartment"] == "malignant"] for s in samples]
    sizes = [len(m) for m in malignant]
    cells = pd.concat([m.astype({"n_counts": float}) for m in malignant if len(m)] or [_no_cells()], ignore_index=True)
    group = np.repeat(np.arange(len(samples)), sizes)
    out = {}
    for gene in GENES:
        lowest = np.array([a.get(gene, np.nan) for a in ambient], dtype=np.float64)
        # Each sample has its own bound; the common rate is bounded by the cleanest sample.
        known = lowest[np.isfinite(lowest) & (np.array(sizes) > 0)]
        floor, anchor = float(known.min(initial=np.inf)) if len(known) else 0.0, _anchor(gene, samples)
        out[gene] = estimate_gene(
            gene, cells, group, floor=floor or anchor, low_start=max(floor, anchor), options=options, ambient=lowest
        )
    return out


def _no_cells() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"compartment": pd.Series([], dtype=object), "n_counts": pd.Series([], dtype=float)})


def _anchor(gene: str, samples: list[pd.DataFrame]) -> float:
    """Pooled rate of a gene in the types that do not make it (UMI per 10,000); 0 where there is no such cell."""
    total = size = 0.0
    for sample in samples:
        cells = sample[sample["compartment"].isin(NEGATIVE_TYPES.get(gene, ()))]
        counts = _umi(cells, gene)
        known = np.isfinite(counts)
        total += float(counts[known].sum())
        size += float(_size(cells)[known].sum())
    return total / size if size else 0.0


# ------------------------------------------------------------------------------------------------------ per sample
def _obstacle(
    genes: tuple[str, ...], sample: pd.DataFrame, n: int, rates: dict[str, GeneRates], options: Csc
) -> tuple[str, str] | None:
    """Status and reason that stand before any fit; None where there is none."""
    for gene in genes:
        if len(sample) and not np.isfinite(_umi(sample, gene)).any():
            return _absent(gene), f"{gene} is not in the reference of this sample"
    if n < options.min_malignant:
        return "too_few_malignant", f"{n} malignant cells, {options.min_malignant} needed"
    for gene in genes:
        found = rates.get(gene)
        if found is None:
            return "rates_not_estimated", f"no rates of {gene} for this chemistry"
        if found.rates is None:
            status = found.status if found.status == "not_bimodal" else "rates_not_estimated"
            return status, found.reason
    return None


def _sample_obstacle(genes: tuple[str, ...], rates: dict[str, GeneRates]) -> tuple[str, str] | None:
    """Status and reason of `rates_in_sample` that forbid an answer; None where there is none."""
    found = [rates[g] for g in genes if rates[g].status != "ok"]
    return (found[0].status, "; ".join(f.reason for f in found)) if found else None


def _assess(
    genes: tuple[str, ...], state: int, sample: pd.DataFrame, rates: dict[str, GeneRates], options: Csc
) -> Assessment:
    cells = sample[sample["compartment"] == "malignant"]
    size, last = _size(cells), genes[-1]
    informative = None
    found = rates.get(last)
    if found is not None and found.rates is not None and (not len(sample) or np.isfinite(_umi(sample, last)).any()):
        informative = model.zero_probability(size, found.rates.high, found.rates.shape) <= options.informative_zero
    obstacle = _obstacle(genes, sample, len(cells), rates, options)
    if obstacle is not None:
        return Assessment(*obstacle, informative)
    assert informative is not None
    if informative.mean() < options.min_informative:
        reason = (
            f"{int(informative.sum())} of {len(cells)} malignant cells are so deep that no {last} count means low "
            f"(P(0 | high) <= {options.informative_zero:g}); {options.min_informative:.0%} needed"
        )
        return Assessment("not_informative_depth", reason, informative)
    obstacle = _sample_obstacle(genes, rates)
    if obstacle is not None:
        return Assessment(*obstacle, informative)
    log_lik = _log_lik(genes, cells, size, rates)
    weights, _ = model.fit_weights(log_lik)
    prob = model.posterior(log_lik, weights)[state]
    reason = f"{len(cells)} malignant cells, {informative.mean():.0%} informative"
    reason = "; ".join([reason, *(rates[g].reason for g in genes if rates[g].note)])
    return Assessment("ok", reason, informative, weights, prob, log_lik)


def _log_lik(genes: tuple[str, ...], cells: pd.DataFrame, size: Array, rates: dict[str, GeneRates]) -> Array:
    parts = []
    for gene in genes:
        found = rates[gene].rates
        assert found is not None
        parts.append(found.log_lik(_umi(cells, gene), size))
    return parts[0] if len(parts) == 1 else model.joint_log_likelihood(parts[0], parts[1])


def assess_m_csc(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> Assessment:
    """Fit the four joint CD44 x CD24 weights of a sample's malignant cells and give P(CD44 high, CD24 low | counts).

    Parameters
    ----------
    sample
        Score table of the sample, all cells (compartment, n_counts, umi_CD44, umi_CD24).
    rates
        gene -> `GeneRates` of the sample's chemistry.
    """
    return _assess(("CD44", "CD24"), M_CSC, sample, rates, options)


def assess_aldh1a3(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> Assessment:
    """Fit the weight of the ALDH1A3-high state and give P(ALDH1A3 high | counts); arguments as `assess_m_csc`."""
    return _assess(("ALDH1A3",), 1, sample, rates, options)


def lp_adjusted(sample: pd.DataFrame, rates: dict[str, GeneRates]) -> tuple[Array, Array, Array]:
    """P(ALDH1A3 high) with the expected rate multiplied by the effect of luminal-progenitor likeness.

    The covariate is the level of the set, centred on the malignant cells of the chemistry: a tumour that is
    luminal-progenitor-like as a whole is adjusted, not only its cells among each other.

    Returns
    -------
    The probability (cells,), the weights (2,) of the low and the high state, and the adjusted library sizes (cells,);
    all NaN where the effect is not estimated or the covariate is not measurable in the sample.
    """
    cells = sample[sample["compartment"] == "malignant"]
    found, covariate = rates["ALDH1A3"].rates, _covariate(cells)
    if found is None or not np.isfinite(found.effect) or not np.isfinite(covariate).any():
        missing = np.full(len(cells), np.nan)
        return missing, np.full(2, np.nan), missing
    size = found.adjusted_size(_size(cells), covariate)
    log_lik = found.log_lik(_umi(cells, "ALDH1A3"), size)
    weights, _ = model.fit_weights(log_lik)
    return np.where(np.isfinite(covariate), model.posterior(log_lik, weights)[1], np.nan), weights, size


def _states(prob: Array, high: str, low: str, options: Csc) -> np.ndarray:
    return np.where(prob > options.positive, high, np.where(prob < options.negative, low, "undetermined"))


def call_cells(
    sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc, ambient: dict[str, float] | None = None
) -> tuple[pd.DataFrame, Assessment, Assessment]:
    """State of every cell of a sample: one row per row of `sample`, in its order, as the csc contract says.

    `rates` are those of the chemistry, `ambient` gene -> ambient rate of the sample; see `rates_in_sample`.
    """
    import pandas as pd

    rates = rates_in_sample(sample, rates, options=options, ambient=ambient)
    malignant = (sample["compartment"] == "malignant").to_numpy(dtype=bool)
    n = len(sample)
    out: dict[str, Any] = {"cell_id": sample["cell_id"].to_numpy()}
    m_csc, aldh = assess_m_csc(sample, rates, options=options), assess_aldh1a3(sample, rates, options=options)

    def spread(values: np.ndarray | None, dtype: Any = float, missing: Any = np.nan) -> np.ndarray:
        full = np.full(n, missing, dtype=dtype)
        if values is not None:
            full[malignant] = values
        return full

    for found, prob, state, status, names in (
        (m_csc, "m_csc_prob", "csc_state", "csc_status", ("m_csc", "other")),
        (aldh, "aldh1a3_prob", "aldh1a3_state", "aldh1a3_status", ("high", "low")),
    ):
        called = None if found.prob is None else _states(found.prob, *names, options)
        out[prob], out[state] = spread(found.prob), spread(called, object, "not_assessable")
        out[status] = np.where(malignant, found.status, "not_malignant").astype(object)
    out["cd24_informative"] = spread(m_csc.informative, object, pd.NA)
    out["aldh1a3_lp_prob"] = spread(lp_adjusted(sample, rates)[0] if aldh.ok else None)
    return pd.DataFrame(out), m_csc, aldh


# ------------------------------------------------------------------------------------------------------ per patient
def wording(fraction: float, low: float, zero_limit: float, n: int, informative: float, options: Csc) -> str:
    """How a fraction may be said: ``not distinguishable from zero`` or ``estimated``.

    It is not distinguishable when the lower end of its interval is less than half a cell, when a sample without any
    such cell would reach it within the level of the interval, or when it lies below `options.resolvable` and the data
    are shallow (more than ``informative_zero`` of the cells not informative).
    """
    shallow = informative < 1 - options.informative_zero
    if low < 0.5 / n or fraction <= zero_limit or (fraction < options.resolvable and shallow):
        return NOT_DISTINGUISHABLE
    return "estimated"


def odds_ratio(weights: Array, n: int) -> float:
    """Odds ratio pi_11 pi_00 / (pi_10 pi_01) of CD44 and CD24; NaN where the divisor rests on less than half a cell."""
    both_low, only_cd24, only_cd44, both_high = (float(w) for w in weights)
    if min(only_cd24, only_cd44) < 0.5 / n:
        return float("nan")
    return both_high * both_low / (only_cd44 * only_cd24)


def overlap(m_csc: Assessment, aldh: Assessment) -> tuple[float, float]:
    """Fraction of cells in both states by a joint fit, and under independence; NaN where either is not assessable."""
    if m_csc.weights is None or aldh.log_lik is None or m_csc.log_lik is None:
        return float("nan"), float("nan")
    others = [i for i in range(4) if i != M_CSC]
    rest = np.maximum(m_csc.weights[others], 1e-300)
    not_csc = np.logaddexp.reduce(m_csc.log_lik[others] + np.log(rest / rest.sum())[:, None], axis=0)
    joint = model.joint_log_likelihood(np.stack([not_csc, m_csc.log_lik[M_CSC]]), aldh.log_lik)
    weights, _ = model.fit_weights(joint)
    return float(weights[3]), float((weights[2] + weights[3]) * (weights[1] + weights[3]))


def _contrast(values: pd.Series | None, csc: np.ndarray, other: np.ndarray) -> float:
    """Mean of a score in CSC-high cells minus other cells; NaN where a side is empty or the score not measurable."""
    if values is None:
        return float("nan")
    x = values.to_numpy(dtype=np.float64)
    a, b = x[csc & np.isfinite(x)], x[other & np.isfinite(x)]
    return float(a.mean() - b.mean()) if len(a) and len(b) else float("nan")


def summarise(
    sample: pd.DataFrame,
    states: pd.DataFrame,
    rates: dict[str, GeneRates],
    *,
    options: Csc,
    rng: np.random.Generator,
    ambient: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Figures of one sample for the patient table: fractions, intervals, wording, naive rule, overlap, contrasts."""
    rates = rates_in_sample(sample, rates, options=options, ambient=ambient)
    cells = sample[sample["compartment"] == "malignant"]
    m_csc, aldh = assess_m_csc(sample, rates, options=options), assess_aldh1a3(sample, rates, options=options)
    size, n, nan = _size(cells), len(cells), float("nan")
    out: dict[str, Any] = {
        "status": m_csc.status, "reason": m_csc.reason, "n_malignant": n,
        "informative_fraction": m_csc.informative_fraction,
        "median_umi": float(cells["n_counts"].median()) if n else nan, "m_csc_fraction": nan, "m_csc_low": nan,
        "m_csc_high": nan, "m_csc_wording": None, "odds_ratio": nan, "naive_fraction": nan,
        "aldh1a3_status": aldh.status, "aldh1a3_fraction": nan, "aldh1a3_low": nan, "aldh1a3_high": nan,
        "aldh1a3_lp_fraction": nan, "aldh1a3_lp_low": nan, "aldh1a3_lp_high": nan,
        "emt_z_csc": nan, "cycling_z_csc": nan,
    }  # fmt: skip
    draw = {"n_bootstrap": options.n_bootstrap, "confidence": options.confidence, "rng": rng}
    if m_csc.weights is not None:
        genes = [rates[g].rates for g in ("CD44", "CD24")]
        fraction = float(m_csc.weights[M_CSC])
        interval = model.bootstrap(genes, size, m_csc.weights, M_CSC, **draw)  # type: ignore[arg-type]
        low = 0.0 if interval.low < 0.5 / n else min(interval.low, fraction)
        state = states.set_index("cell_id")["csc_state"].reindex(cells["cell_id"]).to_numpy(dtype=object)
        contrast = [_contrast(cells.get(z), state == "m_csc", state == "other") for z in ("z_EMT_malignant", "z_G2M")]
        out |= {
            "m_csc_fraction": fraction, "m_csc_low": low, "m_csc_high": max(interval.high, fraction),
            "m_csc_wording": wording(fraction, low, interval.zero_limit, n, m_csc.informative_fraction, options),
            "odds_ratio": odds_ratio(m_csc.weights, n),
            "naive_fraction": float(((_umi(cells, "CD44") > 0) & (_umi(cells, "CD24") == 0)).mean()),
            "emt_z_csc": contrast[0], "cycling_z_csc": contrast[1],
        }  # fmt: skip
    if aldh.weights is not None:
        fraction = float(aldh.weights[1])
        interval = model.bootstrap([rates["ALDH1A3"].rates], size, aldh.weights, 1, **draw)  # type: ignore[list-item,arg-type]
        low = 0.0 if interval.low < 0.5 / n else min(interval.low, fraction)
        out |= {"aldh1a3_fraction": fraction, "aldh1a3_low": low, "aldh1a3_high": max(interval.high, fraction)}
        _, weights, adjusted = lp_adjusted(sample, rates)
        if np.isfinite(weights).all():
            fraction = float(weights[1])
            interval = model.bootstrap([rates["ALDH1A3"].rates], adjusted, weights, 1, **draw)  # type: ignore[list-item,arg-type]
            low = 0.0 if interval.low < 0.5 / n else min(interval.low, fraction)
            out |= {"aldh1a3_lp_fraction": fraction, "aldh1a3_lp_low": low}
            out["aldh1a3_lp_high"] = max(interval.high, fraction)
    out["overlap_fraction"], out["overlap_expected"] = overlap(m_csc, aldh)
    return out


def controls(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> list[dict[str, Any]]:
    """Apply the CD44/CD24 caller to types that cannot be carcinoma: why it must only see malignant cells."""
    rows = []
    known = [g for g in ("CD44", "CD24") if g in rates and rates[g].rates is not None]
    measured = len(known) == 2 and all(np.isfinite(_umi(sample, g)).any() for g in known)
    for cell_type in CONTROL_TYPES:
        cells = sample[sample["compartment"] == cell_type]
        called = float("nan")
        if measured and len(cells):
            log_lik = _log_lik(("CD44", "CD24"), cells, _size(cells), rates)
            weights, _ = model.fit_weights(log_lik)
            called = float((model.posterior(log_lik, weights)[M_CSC] > options.positive).mean())
        rows.append({"cell_type": cell_type, "n_cells": len(cells), "fraction_called": called})
    return rows


# ------------------------------------------------------------------------------------------------------------ files
def _chemistry(record: dict[str, Any]) -> str:
    return str(record.get("chemistry") or "unknown")


def _read_scores(path: str | Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    wanted = ["cell_id", "compartment", "n_counts", COVARIATE, "z_EMT_malignant", "z_G2M", *(f"umi_{g}" for g in GENES)]
    names = set(pq.read_schema(path).names)
    table = io.read_table(path, columns=[c for c in wanted if c in names])
    return table.astype({c: float for c in table.columns if c not in ("cell_id", "compartment")})


def _read_ambient(path: str | Path) -> dict[str, float]:
    """Gene -> ambient rate (UMI per 10,000): the contamination rate times the gene's share of the ambient pool."""
    table = io.read_table(path)
    table = table[table["gene"].isin(GENES)]
    rate = table["ambient_fraction"].astype(float) * table["contamination_rate"].astype(float) * UNIT
    return dict(zip(table["gene"], rate, strict=True))


def rates_table(found: dict[str, dict[str, GeneRates]]) -> pd.DataFrame:
    """Table of the csc_rates contract from chemistry -> gene -> `GeneRates`."""
    import pandas as pd

    rows = []
    for chemistry, genes in found.items():
        for gene, result in genes.items():
            r = result.rates or Rates(*[float("nan")] * 6)
            rows.append({
                "chemistry": chemistry, "gene": gene, "status": result.status, "reason": result.reason,
                "n_cells": result.n_cells, "low": r.low, "high": r.high, "shape": r.shape, "log_low_se": r.log_low_se,
                "log_high_se": r.log_high_se, "bic_gain": r.bic_gain,
                "bic_gain_samples": r.bic_gain_samples, "lp_effect": r.effect, "lp_centre": r.centre,
            })  # fmt: skip
    return pd.DataFrame(rows)


def rates_of(table: pd.DataFrame, chemistry: str) -> dict[str, GeneRates]:
    """Rates of one chemistry from a csc_rates table, by gene; empty where the chemistry is not in it."""
    out = {}
    for row in table[table["chemistry"] == chemistry].to_dict("records"):
        rates = None
        if row["status"] == "ok":
            keys = ("low", "high", "shape", "log_low_se", "log_high_se", "bic_gain", "bic_gain_samples")
            effect, centre = float(row["lp_effect"]), float(row["lp_centre"])
            rates = Rates(**{k: float(row[k]) for k in keys}, effect=effect, centre=centre)
        out[str(row["gene"])] = GeneRates(str(row["status"]), str(row["reason"]), int(row["n_cells"]), rates)
    return out


def run_csc_rates(
    scores: list[Path], ambient: list[Path], records: list[Path], out: str | Path, *, options: Csc
) -> None:
    """Estimate the rates of the two states per gene and chemistry; the ``csc-rates`` stage."""
    with io.stage_output(out, "csc_rates", stage="csc-rates") as result:
        groups: dict[str, list[int]] = {}
        known = [io.read_json(r) for r in records]
        for i, record in enumerate(known):
            groups.setdefault(_chemistry(record), []).append(i)
        found = {}
        for chemistry in sorted(groups):
            tumours = [i for i in groups[chemistry] if not patients.is_normal(known[i])]
            usable = [i for i in tumours if known[i]["is_counts"]]
            if not usable:
                status, reason = "no_counts", "no sample of this chemistry holds counts"
                if not tumours:
                    status, reason = "normal_tissue", "every sample of this chemistry is normal tissue"
                found[chemistry] = {g: GeneRates(status, reason) for g in GENES}
                continue
            usable.sort(key=lambda i: str(known[i]["sample"]))
            found[chemistry] = estimate_rates(
                [_read_scores(scores[i]) for i in usable], [_read_ambient(ambient[i]) for i in usable], options=options
            )
        if found:
            result.table = rates_table(found)
        result.summary = {c: {g: r.status for g, r in genes.items()} for c, genes in found.items()}


def _cause(status: str, reason: str, upstream: dict[str, Any]) -> str:
    """Add to the words for too few malignant cells what the malignancy stage said, from the summary of the scores."""
    said = upstream.get("malignancy") or {}
    if status != "too_few_malignant" or not said:
        return reason
    counts = ", ".join(f"{n} epithelial cells {name}" for name, n in sorted(said.get("epithelial", {}).items()))
    why = [said["status"] if said["status"] != "ok" else "", counts or "no epithelial cell"]
    return f"{reason} (malignancy: {'; '.join(w for w in why if w)})"


def run_csc(
    scores: str | Path, rates: str | Path, record: str | Path, ambient: str | Path, out: str | Path, *, options: Csc
) -> None:
    """Call every cell of one sample; the ``csc`` stage.  One row per row of `scores`."""
    import pandas as pd

    known = io.read_json(record)
    with io.stage_output(out, "csc", stage="csc", sample=str(known["sample"])) as result:
        if known["status"] != "ok":
            raise NotAssessable(known["status"], known["reason"])
        table, upstream = _read_scores(scores), io.read_status(scores)
        if table.empty:
            reason = upstream.reason or "no cell passed quality control"
            raise NotAssessable("no_cells" if upstream.ok else upstream.status, reason)
        if not known["is_counts"]:
            malignant = table["compartment"] == "malignant"
            status = np.where(malignant, "no_counts", "not_malignant")
            result.table = pd.DataFrame({
                "cell_id": table["cell_id"], "m_csc_prob": np.nan, "csc_state": "not_assessable", "csc_status": status,
                "cd24_informative": pd.NA, "aldh1a3_prob": np.nan, "aldh1a3_lp_prob": np.nan,
                "aldh1a3_state": "not_assessable", "aldh1a3_status": status,
            })  # fmt: skip
            raise NotAssessable("no_counts", "the matrix holds normalised values (such as TPM), not counts")
        found = rates_of(io.read_table(rates), _chemistry(known))
        own = _read_ambient(ambient)
        result.table, m_csc, aldh = call_cells(table, found, options=options, ambient=own)
        result.summary = {
            "n_malignant": int((table["compartment"] == "malignant").sum()),
            "n_m_csc": int((result.table["csc_state"] == "m_csc").sum()),
            "informative_fraction": m_csc.informative_fraction,
            "aldh1a3_status": aldh.status,
            # NaN: not estimated; the low rate of the chemistry holds alone
            "ambient_rate": {g: own.get(g, float("nan")) for g in GENES},
        }
        if not m_csc.ok:
            raise NotAssessable(m_csc.status, _cause(m_csc.status, m_csc.reason, upstream.summary))


def run_csc_patients(
    csc: list[Path],
    scores: list[Path],
    ambient: list[Path],
    records: list[Path],
    rates: str | Path,
    out: str | Path,
    out_controls: str | Path,
    *,
    options: Csc,
    seed: int,
) -> None:
    """Fractions per sample with intervals, the sample that speaks for each patient, and the controls table."""
    import pandas as pd

    with io.stage_output(out, "csc_patients", stage="csc-patients", also={"csc_controls": out_controls}) as result:
        table = io.read_table(rates)
        known = [io.read_json(r) for r in records]
        rows, checks = [], []
        for cells_path, scores_path, ambient_path, record in zip(csc, scores, ambient, known, strict=True):
            sample = str(record["sample"])
            states, cells, status = io.read_table(cells_path), _read_scores(scores_path), io.read_status(cells_path)
            # each sample has its own stream: its interval does not depend on the other samples
            rng = np.random.default_rng([seed, zlib.crc32(sample.encode())])
            readable = record["status"] == "ok" and record["is_counts"] and len(cells) > 0
            found = rates_of(table, _chemistry(record)) if readable else {}
            own = _read_ambient(ambient_path)
            normal = patients.is_normal(record)
            # of normal tissue only the counts are shown
            row = summarise(cells, states, {} if normal else found, options=options, rng=rng, ambient=own)
            row["reason"] = _cause(row["status"], row["reason"], io.read_status(scores_path).summary)
            if not readable:
                row |= {"status": status.status if not status.ok else "no_cells", "reason": status.reason or "no cell"}
                row["aldh1a3_status"] = row["status"]
            elif normal:
                reason = f"normal tissue, not a tumour; {row['n_malignant']} cells called malignant"
                row |= {"status": "normal_tissue", "reason": reason, "aldh1a3_status": "normal_tissue"}
            checks += [{"sample": sample, **c} for c in controls(cells, found, options=options)]
            about = {k: record.get(k) for k in ("subtype", "chemistry", "treatment")}
            rows.append({"patient": patients.patient_of(record), "sample": sample, **about, **row})
        assessable = {r["sample"]: r["n_malignant"] if r["status"] == "ok" else 0 for r in rows}
        tumours = [r for r in known if not patients.is_normal(r)]
        primary = set(patients.primary_samples(tumours, assessable).values())
        if rows:
            result.table = pd.DataFrame(rows).assign(primary_sample=[r["sample"] in primary for r in rows])
            result.extra["csc_controls"] = pd.DataFrame(checks)
        result.summary = {"n_samples": len(rows), "n_assessable": sum(n > 0 for n in assessable.values())}


# ----------------------------------------------------------------------------------------------------------- AnnData
def score(
    adata: AnnData, *, rates: pd.DataFrame | None = None, malignant: str | None = None, chemistry: str = "unknown",
    layer: str | None = None, options: Csc | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Call CD44+/CD24- and ALDH1A3-high cells of an AnnData object with raw counts; see docs/csc.md.

    Parameters
    ----------
    adata
        (cells, genes) raw counts in ``X`` (or `layer`); genes by symbol or Ensembl id.
    rates
        A csc_rates table; estimated from these cells when not given.
    malignant
        Boolean column of ``obs``; all cells are taken as malignant when not given.
    chemistry
        Row group of `rates` to use.
    layer
        Layer with raw counts.
    options
        Csc section of the configuration; defaults when not given.

    Returns
    -------
    One row per cell, indexed as ``adata.obs_names``, with the columns of the csc contract but ``cell_id``.  NA means
    not malignant or not assessable; the status columns say which.

    Raises
    ------
    UserError
        If the matrix does not hold counts.
    """
    import pandas as pd

    from nicheloop import genes
    from nicheloop.config import Csc

    options = options or Csc()
    x = adata.X if layer is None else adata.layers[layer]
    values = x.data if hasattr(x, "tocsr") else np.asarray(x)
    if values.size and (np.any(values != np.round(values)) or np.min(values) < 0):
        raise UserError("csc.score needs raw counts; the matrix holds other values.  Name the layer with counts.")
    known = genes.resolve_features(list(adata.var_names))
    table = pd.DataFrame({"cell_id": np.asarray(adata.obs_names, dtype=object)})
    table["compartment"] = "malignant"
    if malignant is not None:
        table.loc[~adata.obs[malignant].to_numpy(dtype=bool), "compartment"] = "other"
    table["n_counts"] = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    for gene in GENES:
        columns = np.flatnonzero(np.asarray(known.symbols) == gene)
        total = np.asarray(x[:, columns].sum(axis=1), dtype=np.float64).ravel()
        table[f"umi_{gene}"] = total if len(columns) else np.nan
    found = rates_of(rates, chemistry) if rates is not None else estimate_rates([table], [{}], options=options)
    out, _, _ = call_cells(table, found, options=options)
    return out.set_index("cell_id")
