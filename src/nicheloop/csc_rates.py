"""Rates of the low and the high state of CD44, CD24 and ALDH1A3, per chemistry and sample.  See docs/csc.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_model as model
from nicheloop import io, patients
from nicheloop.csc_model import Array, Rates

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

GENES = ("CD44", "CD24", "ALDH1A3")
# Types that do not make the gene: what they show is ambient.  CD44 has none: stroma and immune cells make it.
NEGATIVE_TYPES = {"CD24": ("t_nk", "caf", "endothelial")}
UNIT = 1e4  # rates are UMI per 10,000
COVARIATE = "level_LP_covariate"  # a z is near 0 in every sample by construction: it could not tell tumours apart
MAX_REFITS = 5  # rates and the samples they rest on settle in two or three rounds


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


def absent_status(gene: str) -> str:
    return f"{gene.lower()}_absent_from_reference"


def size_of(cells: pd.DataFrame) -> Array:
    return np.asarray(np.maximum(cells["n_counts"], 1.0), dtype=np.float64) / UNIT


def umi_of(cells: pd.DataFrame, gene: str) -> Array:
    """(cells,) UMI of a gene, all NaN where the reference lacks it."""
    if f"umi_{gene}" not in cells:
        return np.full(len(cells), np.nan)
    return np.asarray(cells[f"umi_{gene}"], dtype=np.float64)


def covariate_of(cells: pd.DataFrame) -> Array:
    return np.asarray(cells[COVARIATE], dtype=np.float64) if COVARIATE in cells else np.full(len(cells), np.nan)


# ------------------------------------------------------------------------------------------------------------ rates
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
    counts = umi_of(cells, gene)
    known = np.isfinite(counts)
    if len(cells) and not known.any():
        return GeneRates(absent_status(gene), f"{gene} is not in the reference of any sample of this chemistry")
    n = int(known.sum())
    if n < options.min_malignant:
        return GeneRates("too_few_malignant", f"{n} malignant cells, {options.min_malignant} needed", n)
    counts, size = counts[known], size_of(cells)[known]
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
    between = ""
    if rates.bic_gain_samples < 0:
        gain, keep = rates.bic_gain_samples, np.ones(len(keep), dtype=bool)
        cell, part = keep[group], group
        pure = _pure_cohort(counts, size, group, lowest, gain, {**fit, "floor": floor}, options)
        if pure is None:
            reason = (
                f"one state of {gene} with a rate per sample fits better (BIC gain of two states {gain:.3g}): samples "
                f"differ more than the cells within them; all cells: {continuous}"
            )
            return GeneRates("not_bimodal", reason, n)
        rates, ratio, used = pure, pure.high / pure.low, n
        between = "; samples differ more than the cells within them: tumours of one state each, read as a whole"
        left_out = 0
    if gene == "ALDH1A3":
        effect, centre, error = model.fit_effect(
            counts[cell], size[cell], part, covariate_of(cells)[known][cell], rates, lowest[keep]
        )
        rates = replace(rates, effect=effect, centre=centre, effect_se=error)
    reason = (
        f"two states, {ratio:.3g}-fold apart, BIC gain {rates.bic_gain:.4g}; {used} cells, {int(keep.sum())} samples"
    )
    if left_out:
        reason += f"; {left_out} samples left out, which one state explains as well"
    return GeneRates("ok", reason + between, used, rates)


def _pure_cohort(
    counts: Array, size: Array, group: np.ndarray, ambient: Array, gain: float, fit: dict[str, Any], options: Csc
) -> Rates | None:
    """Rates where tumours are of one state each: some as a whole low, some high, as cell lines are; None otherwise.

    The shape is that within samples: the spread between samples must not be taken for spread within a state.  `gain`
    is the (negative) BIC gain of two states over one per sample; it marks the rates as those of a pure cohort.
    """
    _, within = model.fit_sample_rates(counts, size, group, fit["shape"], fit["min_shape"])
    shape = float(np.clip(within, fit["min_shape"], 0.99 * model.SHAPE_CEILING))
    rates = model.fit_rates(counts, size, group, ambient=ambient, **(fit | {"shape": shape, "min_shape": shape}))
    if rates.bic_gain < options.min_bic_gain or rates.high < options.pure_min_ratio * rates.low:
        return None
    rates = replace(rates, bic_gain_samples=min(rates.bic_gain_samples, gain))
    seen = set()
    for i, own in enumerate(ambient):
        x, s = counts[group == i], size[group == i]
        here = replace(rates, low=float(rates.low_in(np.array(own))))
        one = model.one_state(x, s, here, min_shape=fit["min_shape"])
        reading = _reading(one, here, options)
        seen.add(("low" if one.rate < here.low else "high") if reading == "beyond" else reading)
    return rates if {"low", "high"} <= seen else None


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

    ``two`` states; or one, purely ``low`` or ``high`` (within `pure_fold` of that rate, in a cohort of pure tumours
    `pure_share` of the way to the other one, and still `min_rate_ratio`-fold from it), ``beyond`` both, ``between``.
    """
    if one.bic_gain > 0:
        return "two"
    pure = rates.bic_gain_samples < 0
    fold = (rates.high / rates.low) ** options.pure_share if pure else options.pure_fold
    for name, rate, other in (("low", rates.low, rates.high), ("high", rates.high, rates.low)):
        near = rate / fold <= one.rate <= rate * fold
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
    size, out = size_of(cells), dict(rates)
    for gene, found in rates.items():
        counts = umi_of(cells, gene)
        if found.rates is None or found.status != "ok" or not np.isfinite(counts).all() or not len(cells):
            continue
        shared, own = found.rates, float((ambient or {}).get(gene, np.nan))
        here = replace(shared, low=float(shared.low_in(np.array(own))))
        if own > shared.low:  # the low rate is the ambient one, known as well as that
            here = replace(here, log_low_se=float((ambient or {}).get(f"{gene} log_se", 0.0)))
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
        counts = umi_of(cells, gene)
        known = np.isfinite(counts)
        total += float(counts[known].sum())
        size += float(size_of(cells)[known].sum())
    return total / size if size else 0.0


# ------------------------------------------------------------------------------------------------------------ files
def chemistry_of(record: dict[str, Any]) -> str:
    return str(record.get("chemistry") or "unknown")


def read_scores(path: str | Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    wanted = ["cell_id", "compartment", "n_counts", COVARIATE, "z_EMT_malignant", "z_G2M", *(f"umi_{g}" for g in GENES)]
    names = set(pq.read_schema(path).names)
    table = io.read_table(path, columns=[c for c in wanted if c in names])
    return table.astype({c: float for c in table.columns if c not in ("cell_id", "compartment")})


def read_ambient(path: str | Path, genes: tuple[str, ...] = GENES) -> dict[str, float]:
    """Ambient rates of a sample (UMI per 10,000): the contamination rate times a gene's share of the ambient pool.

    Returns
    -------
    gene -> rate (NaN: not estimated), and ``<gene> log_se`` -> standard error of its logarithm, from the interval of
    the contamination rate.
    """
    table, summary = io.read_table(path), io.read_status(path).summary
    table = table[table["gene"].isin(genes)]
    rate = table["ambient_fraction"].astype(float) * table["contamination_rate"].astype(float) * UNIT
    out = dict(zip(table["gene"], rate, strict=True))
    low, high = (float(summary.get(f"contamination_{end}") or np.nan) for end in ("low", "high"))
    if np.isfinite(low) and np.isfinite(high) and 0 < low <= high:
        # half the width of a 95 % interval in the log is 1.96 standard errors
        out |= {f"{g} log_se": float(np.log(high / low) / (2 * 1.96)) for g in table["gene"]}
    return out


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
                "bic_gain_samples": r.bic_gain_samples, "lp_effect": r.effect, "lp_effect_se": r.effect_se,
                "lp_centre": r.centre,
            })  # fmt: skip
    return pd.DataFrame(rows)


def rates_of(table: pd.DataFrame, chemistry: str) -> dict[str, GeneRates]:
    """Rates of one chemistry from a csc_rates table, by gene; empty where the chemistry is not in it."""
    out = {}
    for row in table[table["chemistry"] == chemistry].to_dict("records"):
        rates = None
        if row["status"] == "ok":
            keys = ("low", "high", "shape", "log_low_se", "log_high_se", "bic_gain", "bic_gain_samples")
            effect = {"effect": "lp_effect", "centre": "lp_centre", "effect_se": "lp_effect_se"}
            rates = Rates(**{k: float(row[k]) for k in keys}, **{k: float(row[c]) for k, c in effect.items()})
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
            groups.setdefault(chemistry_of(record), []).append(i)
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
                [read_scores(scores[i]) for i in usable], [read_ambient(ambient[i]) for i in usable], options=options
            )
        if found:
            result.table = rates_table(found)
        result.summary = {c: {g: r.status for g, r in genes.items()} for c, genes in found.items()}
