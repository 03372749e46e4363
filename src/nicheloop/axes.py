"""Ligand-receptor axes over patients: one primary tumour sample each.  See docs/crosstalk.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import decoys, io, patients, stability, stats
from nicheloop.detection import furthest
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk

WORDS = {
    "tested": "tested",
    "ligand_not_detected": "ligand not detected",
    "receptor_not_detected": "receptor not detected",
    "gene_absent_from_reference": "gene absent from the reference",
    "too_few_cells": "too few cells",
    "platelet_contamination": "platelet contamination",
    "ambient_not_exceeded": "ambient RNA not exceeded",
    "no_counts": "no counts",
}
# control -> axis, receptors (all of the axis where empty)
CONTROLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DLL4-NOTCH": ("CTRL_DLL4_NOTCH", ()),
    "CD40LG-CD40": ("CTRL_CD40LG_CD40", ()),
    "CXCL13-CXCR5": ("CTRL_CXCL13_CXCR5", ()),
    "PDGFB-PDGFRB": ("CTRL_PDGFB_PDGFRB", ()),
    "VEGFA-KDR": ("VEGFA", ("KDR",)),
}


# ------------------------------------------------------------------------------------------------ who speaks for whom
def tumour_samples(records: Sequence[dict[str, Any]], n_assessable: dict[str, int]) -> dict[str, str]:
    """Patient -> the sample of the primary tumour that speaks for it; patients without one are left out."""
    return _by_rank(records, n_assessable, 0)


def not_primary(records: Sequence[dict[str, Any]], n_assessable: dict[str, int] | None = None) -> dict[str, str]:
    """Patient -> lymph node or metastasis, for patients without a primary tumour: no part of any cohort claim."""
    return _by_rank(records, n_assessable or {}, 1)


def _by_rank(records: Sequence[dict[str, Any]], n_assessable: dict[str, int], rank: int) -> dict[str, str]:
    tissue = {str(r["sample"]): r.get("tissue") for r in records}
    chosen = patients.primary_samples(list(records), n_assessable)
    return {p: s for p, s in sorted(chosen.items()) if patients.tissue_rank(tissue[s]) == rank}


def left_out_words(n: int) -> str:
    """Say how many patients have no primary tumour sample; empty for none."""
    return f"; {n} more without a primary tumour sample (not_primary_tumour)" if n else ""


def assessable_cells(paths: Sequence[str | Path]) -> dict[str, int]:
    """The rule of `patients.assessable_cells` from the summaries of a stage, where the scores are not at hand."""
    out = {}
    for path in paths:
        status = io.read_status(path)
        malignant, cells = (int(status.summary.get(k) or 0) for k in ("n_malignant", "n_cells"))
        out[status.sample] = malignant * 10_000_000 + cells  # lexicographic: no sample has ten million cells
    return out


# ----------------------------------------------------------------------------------------------------------- summaries
def strongest(group: pd.DataFrame) -> pd.DataFrame:
    """One tested row per patient, the one with the largest strength: chosen by strength, never by its p-value."""
    tested = group[group["status"] == "tested"].sort_values(
        ["patient", "strength", "ligand", "receptor"], ascending=[True, False, True, True]
    )
    return tested.drop_duplicates("patient")


def pooled(best: pd.DataFrame, confidence: float) -> dict[str, tuple[Any, Any, stats.Meta]]:
    """Random-effects means of log2 strength, balanced specificity and strength at equal cells and depth.

    Parameters
    ----------
    best
        One tested row per patient as from `strongest`; columns that are missing count as not measured.

    Returns
    -------
    ``effect``, ``specificity``, ``effect_matched`` -> (patients,) values, their standard errors, and the mean.
    """
    nothing = np.full(len(best), np.nan)
    strength = best["strength"].to_numpy(dtype=float)
    logs = np.log2(strength, out=nothing.copy(), where=strength > 0)

    def column(name: str) -> Any:
        return best[name].to_numpy(dtype=float) if name in best else nothing

    values = {
        "effect": (logs, column("log2_se")),
        "specificity": (column("specificity"), column("specificity_se")),
        "effect_matched": (column("matched_log2_strength"), column("matched_log2_se")),
    }
    return {name: (y, se, stats.random_effects(y, se, confidence)) for name, (y, se) in values.items()}


def _interval(name: str, meta: stats.Meta) -> dict[str, float]:
    """Mean with its interval; NA with fewer than two patients."""
    shown = (meta.effect, meta.low, meta.high) if meta.n >= 2 else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), shown, strict=True))


def power_words(n: int, needed: float, rho: float) -> str:
    """Say what so many patients could show."""
    if n < 2:
        return f"n = {n}: no mean over patients"
    said = f"n = {n}: with 80 % power "
    said += f"a specificity of {needed:.2g} (log2) or more" if np.isfinite(needed) else "no specificity can be given"
    return said + (
        f", |rho| of {rho:.2g} or more" if np.isfinite(rho) else ", no correlation with fewer than 4 patients"
    )


def summarise_axes(
    rows: pd.DataFrame,
    n_patients: int,
    *,
    confidence: float,
    alpha: float,
    not_run: dict[str, str],
    n_left_out: int = 0,
) -> pd.DataFrame:
    """Summarise axes over patients.

    Parameters
    ----------
    rows
        Rows of the ``crosstalk`` contract of one sample per patient, with a column ``patient``.
    n_patients
        Patients with a primary sample, with rows or without.
    confidence, alpha
        Of the interval; level of q for ``n_significant``.
    not_run
        Patient -> status, for patients without any row.
    n_left_out
        Patients without a primary tumour sample, for the reason.

    Returns
    -------
    One row per axis, sender and receiver.  A patient's value is the tested ligand-receptor pair with the largest
    strength (`strongest`).  Pooled are log2 strength and the balanced specificity, not the ratio to permuted labels:
    that ratio depends on the share of each type in the sample.
    """
    import pandas as pd

    out = []
    for (axis, sender, receiver), group in rows.groupby(["axis", "sender", "receiver"], sort=False):
        best = strongest(group)
        obstacles = Counter(dict.fromkeys(WORDS, 0))
        for _, mine in group[~group["patient"].isin(best["patient"])].groupby("patient"):
            obstacles[furthest(mine["status"])] += 1
        obstacles.update(not_run.values())
        obstacles = Counter({k: v for k, v in obstacles.items() if v})
        n = len(best)
        found = pooled(best, confidence)
        words = [f"{v} {WORDS.get(k, k.replace('_', ' '))}" for k, v in obstacles.most_common()]
        if n >= 2:
            status, reason = "ok", f"tested in {n} of {n_patients} patients"
        elif n == 1:
            status, reason = "too_few_patients", f"tested in 1 of {n_patients} patients, 2 are needed"
        else:
            status = obstacles.most_common(1)[0][0] if obstacles else "too_few_patients"
            reason = f"tested in none of {n_patients} patients"
        undetected = {
            side: group[group["status"] == f"{side}_not_detected"][f"{side}_upper"].max()
            for side in ("ligand", "receptor")
        }
        y, se, level = found["effect"]
        level_loo = stability.leave_one_out(y, se, confidence)
        y, se, specific = found["specificity"]
        loo = stability.leave_one_out(y, se, confidence)
        needed, rho = stability.detectable_effect(specific, confidence), stability.detectable_rho(n, 1 - confidence)
        matched = found["effect_matched"][2]
        out.append({
            "axis": axis, "arm": group["arm"].iloc[0], "sender": sender, "receiver": receiver, "n_patients": n_patients,
            "n_assessable": n, "n_significant": int((best["q"] < alpha).sum()),
            "n_significant_usual": int((best["q_usual"] < alpha).sum()) if "q_usual" in best else 0, "status": status,
            "reason": "; ".join([reason, *words]) + left_out_words(n_left_out),
            **_interval("effect", level), "effect_loo_low": level_loo.low, "effect_loo_high": level_loo.high,
            **_interval("specificity", specific), "specificity_loo_low": loo.low, "specificity_loo_high": loo.high,
            "sign_changes": loo.sign_changes if np.isfinite(loo.low) else None, "i2": level.i2 if n >= 2 else np.nan,
            "detectable_specificity": needed, "detectable_rho": rho,
            "n_matched": int((best["matched_status"] == "tested").sum()) if "matched_status" in best else 0,
            **_interval("effect_matched", matched), "power": power_words(n, needed, rho),
            "max_upper_ligand": undetected["ligand"], "max_upper_receptor": undetected["receptor"],
        })  # fmt: skip
    return pd.DataFrame(out)


def summarise_subtypes(
    rows: pd.DataFrame,
    subtype_of: Mapping[str, str],
    *,
    confidence: float,
    alpha: float,
    inferred: Collection[str] = (),
) -> pd.DataFrame:
    """Summarise axes within each subtype (contract ``axis_subtypes``).

    Parameters
    ----------
    rows
        As for `summarise_axes`.
    subtype_of
        Patient -> subtype, ``unknown_subtype`` where nothing says; patients without rows included.
    inferred
        Patients whose subtype is inferred from RNA.
    """
    import pandas as pd

    size = Counter(subtype_of.values())
    from_rna = Counter(subtype_of[p] for p in inferred)
    out = []
    for (axis, sender, receiver), group in rows.groupby(["axis", "sender", "receiver"], sort=False):
        best = strongest(group)
        kind = best["patient"].map(subtype_of)
        for subtype in sorted(size):
            mine = best[kind == subtype]
            found = pooled(mine, confidence)
            out.append({
                "axis": axis, "sender": sender, "receiver": receiver, "subtype": subtype, "n_patients": size[subtype],
                "n_inferred": from_rna[subtype],
                "n_assessable": len(mine), "n_significant": int((mine["q"] < alpha).sum()),
                **_interval("effect", found["effect"][2]), **_interval("specificity", found["specificity"][2]),
            })  # fmt: skip
    return pd.DataFrame(out)


def summarise_controls(rows: pd.DataFrame, n_patients: int, *, alpha: float, min_cells: int) -> pd.DataFrame:
    """Give the verdict on every positive control (contract ``axis_controls``).

    A control is positive where more patients with its cells are significant (p at most `alpha`) than the level gives by
    chance (binomial); patients with cells in whom it could not be tested count against it.
    """
    import pandas as pd
    from scipy.stats import binom

    out = []
    for control, (axis, receptors) in CONTROLS.items():
        mine = rows[(rows["axis"] == axis) & (rows["receptor"].isin(receptors) if receptors else True)]
        for (ligand, receptor, sender, receiver), group in mine.groupby(
            ["ligand", "receptor", "sender", "receiver"], sort=False
        ):
            asked = group[
                (group["n_sender"] >= min_cells)
                & (group["n_receiver"] >= min_cells)
                & ~group["status"].isin(["gene_absent_from_reference", "no_counts"])
            ]
            k, n = int((asked["p"] <= alpha).sum()), len(asked)
            p = float(binom.sf(k - 1, n, alpha)) if n else np.nan
            verdict = "not assessable" if not n else "positive" if k and p <= alpha else "not positive"
            others = Counter(group.loc[group["status"] != "tested", "status"])
            words = [f"{v} {WORDS.get(s, s)}" for s, v in sorted(others.items(), key=lambda kv: (-kv[1], kv[0]))]
            reason = f"significant in {k} of {n} patients with its cells"
            out.append({
                "control": control, "axis": axis, "ligand": ligand, "receptor": receptor, "sender": sender,
                "receiver": receiver, "n_patients": n_patients, "n_with_cells": n,
                "n_tested": int((group["status"] == "tested").sum()), "n_significant": k, "p": p, "verdict": verdict,
                "reason": "; ".join([reason, *words]),
            })  # fmt: skip
    return pd.DataFrame(out)


def run_axes(
    crosstalk: Sequence[str | Path],
    records: Sequence[str | Path],
    out: str | Path,
    *,
    options: Crosstalk,
    alpha: float,
    scores: Sequence[str | Path] | None = None,
    decoy_pairs: Sequence[str | Path] | None = None,
    out_subtypes: str | Path | None = None,
    out_controls: str | Path | None = None,
    out_decoys: str | Path | None = None,
    receptors: str | Path | None = None,
) -> None:
    """Write the cohort tables of axes: one primary tumour sample per patient.

    `scores` decide which sample speaks for a patient (`patients.assessable_cells`).  Subtypes, positive controls and
    matched decoys are written where their paths are given.
    """
    import pandas as pd

    wanted = {"axis_subtypes": out_subtypes, "axis_controls": out_controls, "decoys": out_decoys}
    also = {name: path for name, path in wanted.items() if path is not None}
    with io.stage_output(out, "axes", stage="axes", also=also) as result:
        known = patients.with_subtypes([io.read_json(r) for r in records], receptors)
        cells = patients.assessable_cells(scores) if scores else assessable_cells(crosstalk)
        primary, left_out = tumour_samples(known, cells), not_primary(known)
        result.summary = {"n_patients": len(primary), "not_primary_tumour": sorted(left_out)}
        patient_of = {sample: patient for patient, sample in primary.items()}
        if decoy_pairs:
            read = [(io.read_status(path), path) for path in decoy_pairs]
            mine = [
                (patient_of[s.sample], s.sample, s.status, s.reason, io.read_table(path))
                for s, path in read
                if s.sample in patient_of
            ]
            result.extra["decoys"] = decoys.summarise_decoys(
                sorted(mine, key=lambda m: m[0]),
                alpha=alpha, confidence=options.confidence, min_decoys=options.min_decoys,
            )  # fmt: skip
        parts, not_run = [], {}
        for path in crosstalk:
            status = io.read_status(path)
            if status.sample not in patient_of:
                continue
            table = io.read_table(path)
            if table.empty:
                not_run[patient_of[status.sample]] = status.status
            else:
                parts.append(table.assign(patient=patient_of[status.sample]))
        if not parts:
            reason = "no patient has a primary tumour sample in which an axis could be asked for"
            name = "not_primary_tumour" if left_out and not primary else "no_samples"
            raise NotAssessable(name, reason + left_out_words(len(left_out)))
        rows = pd.concat(parts, ignore_index=True)
        result.table = summarise_axes(
            rows, len(primary), confidence=options.confidence, alpha=alpha, not_run=not_run, n_left_out=len(left_out)
        )
        record_of = {str(r["sample"]): r for r in known}
        subtype_of = {p: str(record_of[s].get("subtype") or "unknown_subtype") for p, s in primary.items()}
        result.extra["axis_subtypes"] = summarise_subtypes(
            rows, subtype_of, confidence=options.confidence, alpha=alpha,
            inferred=[p for p, s in primary.items() if record_of[s]["subtype_source"] == "inferred"],
        )  # fmt: skip
        result.extra["axis_controls"] = summarise_controls(rows, len(primary), alpha=alpha, min_cells=options.min_cells)
        result.summary["n_axes"] = int(rows["axis"].nunique())
