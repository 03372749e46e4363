"""CD44+/CD24- and ALDH1A3-high fractions per patient, with intervals, and the control types.  See docs/csc.md."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_model as model
from nicheloop import io, patients
from nicheloop.csc import M_CSC, Assessment, assess_aldh1a3, assess_m_csc, cause_of, log_lik_of, lp_adjusted
from nicheloop.csc_model import Array
from nicheloop.csc_rates import (
    GeneRates,
    chemistry_of,
    covariate_of,
    rates_in_sample,
    rates_of,
    read_ambient,
    read_scores,
    size_of,
    umi_of,
)
from nicheloop.score import MIXED

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

CONTROL_TYPES = ("t_nk", "caf", "pvl", "myeloid", "endothelial")
NOT_DISTINGUISHABLE = "not distinguishable from zero"


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
    size, n, nan = size_of(cells), len(cells), float("nan")
    out: dict[str, Any] = {
        "status": m_csc.status, "reason": m_csc.reason, "n_malignant": n,
        "n_foreign": int((sample["compartment"] == MIXED).sum()),
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
            "naive_fraction": float(((umi_of(cells, "CD44") > 0) & (umi_of(cells, "CD24") == 0)).mean()),
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
            found = rates["ALDH1A3"].rates
            assert found is not None
            shift = covariate_of(cells) - found.centre
            interval = model.bootstrap([found], adjusted, weights, 1, covariate=shift, **draw)  # type: ignore[arg-type]
            low = 0.0 if interval.low < 0.5 / n else min(interval.low, fraction)
            out |= {"aldh1a3_lp_fraction": fraction, "aldh1a3_lp_low": low}
            out["aldh1a3_lp_high"] = max(interval.high, fraction)
    out["overlap_fraction"], out["overlap_expected"] = overlap(m_csc, aldh)
    return out


def controls(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> list[dict[str, Any]]:
    """Apply the CD44/CD24 caller to types that cannot be carcinoma: why it must only see malignant cells."""
    rows = []
    known = [g for g in ("CD44", "CD24") if g in rates and rates[g].rates is not None]
    measured = len(known) == 2 and all(np.isfinite(umi_of(sample, g)).any() for g in known)
    for cell_type in CONTROL_TYPES:
        cells = sample[sample["compartment"] == cell_type]
        called = float("nan")
        if measured and len(cells):
            log_lik = log_lik_of(("CD44", "CD24"), cells, size_of(cells), rates)
            weights, _ = model.fit_weights(log_lik)
            called = float((model.posterior(log_lik, weights)[M_CSC] > options.positive).mean())
        rows.append({"cell_type": cell_type, "n_cells": len(cells), "fraction_called": called})
    return rows


# ------------------------------------------------------------------------------------------------------------ files
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
    receptors: str | Path | None = None,
) -> None:
    """Fractions per sample with intervals, the sample that speaks for each patient, and the controls table."""
    import pandas as pd

    with io.stage_output(out, "csc_patients", stage="csc-patients", also={"csc_controls": out_controls}) as result:
        table = io.read_table(rates)
        known = patients.with_subtypes([io.read_json(r) for r in records], receptors)
        rows, checks = [], []
        for cells_path, scores_path, ambient_path, record in zip(csc, scores, ambient, known, strict=True):
            sample = str(record["sample"])
            states, cells, status = io.read_table(cells_path), read_scores(scores_path), io.read_status(cells_path)
            # each sample has its own stream: its interval does not depend on the other samples
            rng = np.random.default_rng([seed, zlib.crc32(sample.encode())])
            readable = record["status"] == "ok" and record["is_counts"] and len(cells) > 0
            found = rates_of(table, chemistry_of(record)) if readable else {}
            own = read_ambient(ambient_path)
            normal = patients.is_normal(record)
            # of normal tissue only the counts are shown
            row = summarise(cells, states, {} if normal else found, options=options, rng=rng, ambient=own)
            row["reason"] = cause_of(row["status"], row["reason"], io.read_status(scores_path).summary)
            if not readable:
                row |= {"status": status.status if not status.ok else "no_cells", "reason": status.reason or "no cell"}
                row["aldh1a3_status"] = row["status"]
            elif normal:
                reason = f"normal tissue, not a tumour; {row['n_malignant']} cells called malignant"
                row |= {"status": "normal_tissue", "reason": reason, "aldh1a3_status": "normal_tissue"}
            checks += [{"sample": sample, **c} for c in controls(cells, found, options=options)]
            about = {k: record.get(k) for k in ("subtype", "subtype_source", "chemistry", "treatment")}
            rows.append({"patient": patients.patient_of(record), "sample": sample, **about, **row})
        assessable = {r["sample"]: r["n_malignant"] if r["status"] == "ok" else 0 for r in rows}
        tumours = [r for r in known if not patients.is_normal(r)]
        primary = set(patients.primary_samples(tumours, patients.assessable_cells(scores)).values())
        if rows:
            result.table = pd.DataFrame(rows).assign(primary_sample=[r["sample"] in primary for r in rows])
            result.extra["csc_controls"] = pd.DataFrame(checks)
        result.summary = {"n_samples": len(rows), "n_assessable": sum(n > 0 for n in assessable.values())}
