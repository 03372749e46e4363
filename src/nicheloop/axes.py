"""Ligand-receptor axes over patients: one primary tumour sample each.  See docs/crosstalk.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, stats
from nicheloop.detection import furthest
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Crosstalk

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


def tumour_samples(records: Sequence[dict[str, Any]], n_assessable: dict[str, int]) -> dict[str, str]:
    """Patient -> the sample of the primary tumour that speaks for it; patients without one are left out."""
    return _by_rank(records, n_assessable, 0)


def not_primary(records: Sequence[dict[str, Any]], n_assessable: dict[str, int] | None = None) -> dict[str, str]:
    """Patient -> lymph node or metastasis, for patients without a primary tumour: no part of any cohort claim."""
    return _by_rank(records, n_assessable or {}, 1)


def _by_rank(records: Sequence[dict[str, Any]], n_assessable: dict[str, int], rank: int) -> dict[str, str]:
    from nicheloop import patients

    tissue = {str(r["sample"]): r.get("tissue") for r in records}
    chosen = patients.primary_samples(list(records), n_assessable)
    return {p: s for p, s in sorted(chosen.items()) if patients.tissue_rank(tissue[s]) == rank}


def left_out_words(n: int) -> str:
    """Say how many patients have no primary tumour sample; empty for none."""
    return f"; {n} more without a primary tumour sample (not_primary_tumour)" if n else ""


def assessable_cells(paths: Sequence[str | Path]) -> dict[str, int]:
    """Sample -> cells by which its patient's sample is chosen: malignant ones first, all cells to break ties."""
    out = {}
    for path in paths:
        status = io.read_status(path)
        malignant, cells = (int(status.summary.get(k) or 0) for k in ("n_malignant", "n_cells"))
        out[status.sample] = malignant * 10_000_000 + cells  # lexicographic: no sample has ten million cells
    return out


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
    strength: chosen by strength, never by its p-value.  Pooled is log2 strength, not its ratio to permuted labels: that
    ratio depends on the share of each type in the sample.
    """
    import pandas as pd

    out = []
    for (axis, sender, receiver), group in rows.groupby(["axis", "sender", "receiver"], sort=False):
        tested = group[group["status"] == "tested"].sort_values(
            ["patient", "strength", "ligand", "receptor"], ascending=[True, False, True, True]
        )
        best = tested.drop_duplicates("patient")
        obstacles = Counter(dict.fromkeys(WORDS, 0))
        for _, mine in group[~group["patient"].isin(best["patient"])].groupby("patient"):
            obstacles[furthest(mine["status"])] += 1
        obstacles.update(not_run.values())
        obstacles = Counter({k: v for k, v in obstacles.items() if v})
        n = len(best)
        strength = best["strength"].to_numpy(dtype=float)
        logs = np.log2(strength, out=np.full(len(strength), np.nan), where=strength > 0)
        meta = stats.random_effects(logs, best["log2_se"], confidence)
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
        show = n >= 2
        out.append({
            "axis": axis, "arm": group["arm"].iloc[0], "sender": sender, "receiver": receiver, "n_patients": n_patients,
            "n_assessable": n, "n_significant": int((best["q"] < alpha).sum()), "status": status,
            "reason": "; ".join([reason, *words]) + left_out_words(n_left_out),
            "effect": meta.effect if show else np.nan, "effect_low": meta.low if show else np.nan,
            "effect_high": meta.high if show else np.nan,
            "max_upper_ligand": undetected["ligand"], "max_upper_receptor": undetected["receptor"],
        })  # fmt: skip
    return pd.DataFrame(out)


def run_axes(
    crosstalk: Sequence[str | Path], records: Sequence[str | Path], out: str | Path, *, options: Crosstalk, alpha: float
) -> None:
    """Write the cohort table of axes: one primary tumour sample per patient."""
    import pandas as pd

    with io.stage_output(out, "axes", stage="axes") as result:
        known = [io.read_json(r) for r in records]
        primary, left_out = tumour_samples(known, assessable_cells(crosstalk)), not_primary(known)
        result.summary = {"n_patients": len(primary), "not_primary_tumour": sorted(left_out)}
        patient_of = {sample: patient for patient, sample in primary.items()}
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
        result.summary["n_axes"] = int(rows["axis"].nunique())
